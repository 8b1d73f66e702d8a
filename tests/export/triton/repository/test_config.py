"""Configurations of all backends: built, parsed, checked for meaning, and served with the backend swapped to ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from bmrl.errors import BMRLError, DTypeError, MissingFileError, RangeError, RepositoryError
from bmrl.export import Artifact, TritonClient, TritonServer, export_model, write_triton_repository
from bmrl.export.artifact import read_entries, write_entries
from bmrl.export.triton.client import session as _session
from bmrl.export.triton.repository import write as triton_repository
from bmrl.export.triton.repository.checks import check_model

LIBTORCH = ["INPUT__0", "OUTPUT__0", "OUTPUT__1", "OUTPUT__2"]
BACKENDS = {  # the format, the file, backend and platform, and the tensors' names
    "pytorch": ("torchscript", "model.pt", ("pytorch", "pytorch_libtorch"), LIBTORCH),
    "torch_aoti": ("torchscript", "model.pt2", ("pytorch", "torch_aoti"), LIBTORCH),
    "onnxruntime": ("onnx", "model.onnx", ("onnxruntime", ""), ["images", "probabilities", "embedding", "score"]),
}


@pytest.fixture(scope="module")
def foreign(model, tmp_path_factory, stand_in):
    """Return a repository per backend that can't run here; TorchScript stands for AOTInductor, which takes long."""
    folder = tmp_path_factory.mktemp("backends")
    made = {}
    for name, (format, filename, _, _) in BACKENDS.items():
        if name == "torch_aoti":
            graph = export_model(model, folder / "graph.pt", format).path
            entry = read_entries(folder)[graph.name] | {"format": "aoti"}
            file = stand_in(torch.jit.load(graph), folder / filename, **entry)
            options = {}
        else:
            file = export_model(model, folder / filename, format).path
            options = {"preferred_batch_sizes": (4, 8), "max_queue_delay": 0.002}
        made[name] = write_triton_repository(
            Artifact(file), folder / name, backend=name, num_threads=3, instances=2, **options
        )
    return made


@pytest.mark.parametrize("name", BACKENDS)
def test_configuration_is_what_the_backend_wants(foreign, name):
    home = foreign[name] / "bmrl"
    _, filename, (backend, platform), tensors = BACKENDS[name]
    config = text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig())  # strict
    assert (config.backend, config.platform, config.default_model_filename) == (backend, platform, filename)
    got = [(entry.name, entry.data_type, list(entry.dims)) for entry in (*config.input, *config.output)]
    uint8, fp32 = 2, 11
    assert got == list(zip(tensors, (uint8, fp32, fp32, fp32), ([3, 32, 32], [4], [24], [1]), strict=True))
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, group.KIND_CPU)
    threads = {"onnxruntime": "intra_op_thread_count"}.get(name, "INTRA_OP_THREAD_COUNT")
    assert config.parameters[threads].string_value == "3"
    assert config.version_policy.latest.num_versions == 1
    assert config.model_warmup[0].inputs[tensors[0]].zero_data
    if name == "torch_aoti":
        assert config.max_batch_size == 1
        assert not config.HasField("dynamic_batching")
    else:
        assert config.max_batch_size == 64
        assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
        assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    files = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    assert files == sorted(["config.pbtxt", "labels.txt", "1/artifact.json", f"1/{filename}"])
    check_model(foreign[name])


@pytest.mark.server
def test_configurations_serve_with_our_backend_in_their_place(
    foreign, repository, tmp_path, images, eager, monkeypatch
):
    """Names, dims, labels, batching and files as they are; only what runs the file is another."""
    folder = shutil.copytree(repository, tmp_path / "models")
    for name, (_, filename, _, _) in BACKENDS.items():
        home = shutil.copytree(foreign[name] / "bmrl", folder / name)
        config = text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig())
        config.name, config.backend, config.platform, config.default_model_filename = name, "python", "", ""
        (home / "config.pbtxt").write_text(text_format.MessageToString(config))
        for file in ("model.py", "artifact_runtime.py"):
            shutil.copy(repository / "bmrl" / "1" / file, home / "1")
        if name == "torch_aoti":  # what stands for the compiled file says so again
            shutil.copy(foreign[name].parent / "graph.pt", home / "1" / filename)
            write_entries(home / "1", {filename: read_entries(foreign[name].parent)["graph.pt"]})
    with TritonServer(folder) as server, tritonclient.grpc.InferenceServerClient(server.grpc_url) as connection:
        for name, (_, _, _, (image_name, *output_names)) in BACKENDS.items():
            monkeypatch.setattr(_session, "MODEL_NAME", name)
            with TritonClient(server.grpc_url) as client:  # takes the names from the configuration
                for output, expected in zip(client.infer(images), eager, strict=True):
                    np.testing.assert_allclose(output, expected.numpy(), rtol=0, atol=1e-4)
            batch = 1 if name == "torch_aoti" else 7
            request = tritonclient.grpc.InferInput(image_name, [batch, 3, 32, 32], "UINT8")
            request.set_data_from_numpy(images[:batch].numpy())
            answer = connection.infer(name, [request])
            for output, expected in zip(output_names, eager, strict=True):
                np.testing.assert_allclose(answer.as_numpy(output), expected[:batch].numpy(), rtol=0, atol=1e-4)
            labels = [tritonclient.grpc.InferRequestedOutput(output_names[0], class_count=1)]
            (best,) = connection.infer(name, [request], outputs=labels).as_numpy(output_names[0])[0]
            assert best.decode().endswith((":photographs", ":StyleGAN3", ":DiffFace", ":Diffae: näïve, v2"))


def change(old, new):
    """Return a change of the configuration's text that must find what it changes."""

    def apply(folder):
        path = folder / "bmrl" / "config.pbtxt"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return apply


def remove(name):
    return lambda folder: (folder / "bmrl" / name).unlink()


def labels(*names):
    return lambda folder: (folder / "bmrl" / "labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def spoil(folder):
    with (folder / "bmrl" / "1" / "model.pt").open("ab") as file:
        file.write(b"\0")


FAULTS = {
    "name": (change('name: "bmrl"', 'name: "brml"'), "name: expected bmrl, got brml"),
    "backend": (change('backend: "python"', 'backend: "tensorrt"'), "expected a backend of python, .*'tensorrt'"),
    "platform": (change('backend: "python"', 'backend: "pytorch"'), "got backend 'pytorch' with platform ''"),
    "input name": (change('"images"', '"image"'), "input and output: expected .*'images'.*, got .*'image'"),
    "input type": (change("TYPE_UINT8", "TYPE_INT8"), "got .*'TYPE_INT8'"),
    "dims": (change("dims: 32", "dims: 64"), r"expected .*\[3, 32, 32\].*, got .*\[3, 64, 32\]"),
    "classes": (change("dims: 4\n", "dims: 5\n"), r"expected .*\[4\].*, got .*\[5\]"),
    "preferred": (
        change("dynamic_batching {", "dynamic_batching { preferred_batch_size: 9"),
        "preferred_batch_size: expected 1 to max_batch_size 8, got 9",
    ),
    "batch": (change("max_batch_size: 8", "max_batch_size: 65"), "max_batch_size: expected 1 to 64, got 65"),
    "no batch": (change("max_batch_size: 8", "max_batch_size: 0"), "max_batch_size: expected 1 to 64, got 0"),
    "cache": (change("dynamic_batching {", "response_cache { enable: true } dynamic_batching {"), "response_cache: "),
    "device": (change("KIND_CPU", "KIND_GPU"), "instance_group.kind: expected KIND_CPU, got KIND_GPU"),
    "label file": (
        change('label_filename: "labels.txt"', ""),
        "label_filename of the first output: expected labels.txt",
    ),
    "thresholds": (
        change("[0.6, 0.8, 0.95]", "[0.6, 0.8]"),
        r"thresholds: expected \[0.6, 0.8, 0.95\], got \[0.6, 0.8\]",
    ),
    "class name": (
        change("StyleGAN3", "StyleGAN2"),
        "parameters.generators: expected .*'StyleGAN3'.* got .*'StyleGAN2'",
    ),
    "artifact": (change('"model.pt"', '"model.onnx"'), "model.onnx: expected an exported file, got nothing there"),
    "too few labels": (
        labels("photographs", "StyleGAN3"),
        r"labels.txt: expected the classes \['photographs', .*, got \[",
    ),
    "swapped labels": (
        labels("StyleGAN3", "photographs", "DiffFace", "Diffae: näïve, v2"),
        r"labels.txt: expected the classes .* in this order, got \['StyleGAN3', 'photographs'",
    ),
    "no labels": (remove("labels.txt"), "labels.txt: expected the class names, got no such file"),
    "no model.py": (remove("1/model.py"), "expected model.py, got none"),
    "no runtime": (remove("1/artifact_runtime.py"), "expected artifact_runtime.py, got none"),
    "no description": (remove("1/artifact.json"), "artifact.json: expected the description of model.pt"),
    "another file": (spoil, "model.pt: expected the content with SHA-256"),
    "no version": (lambda folder: shutil.move(folder / "bmrl" / "1", folder / "bmrl" / "first"), "got none"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_triton_would_load_all_the_same_is_refused(repository, tmp_path, fault):
    folder = shutil.copytree(repository, tmp_path / "models")
    check_model(folder)
    spoiling, message = FAULTS[fault]
    spoiling(folder)
    with pytest.raises(BMRLError, match=message) as error:
        check_model(folder)
    assert len(str(error.value).splitlines()) == 1


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


UNREADABLE = {
    "a pipe for the configuration": (
        "config.pbtxt",
        as_pipe,
        "expected a model configuration, got .*a named pipe",
    ),
    "a pipe for the labels": ("labels.txt", as_pipe, "labels.txt: expected the class names, got .*a named pipe"),
    "other bytes": (
        "config.pbtxt",
        lambda path: path.write_bytes(b"\xff"),
        "a model configuration, got 'utf-8'",
    ),
    "other labels": ("labels.txt", lambda path: path.write_bytes(b"\xff"), "expected the class names, got 'utf-8'"),
    "gigabytes": ("config.pbtxt", lambda path: os.truncate(path, 2**40), "got more than 16777216 bytes"),
    "gigabytes of labels": ("labels.txt", lambda path: os.truncate(path, 2**40), "got more than 16777216 bytes"),
    "a loop": ("labels.txt", lambda path: (path.unlink(), path.symlink_to(path)), "names, got .*symbolic links"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fault", UNREADABLE)
def test_what_is_no_text_is_refused_at_once(repository, tmp_path, fault):
    folder = shutil.copytree(repository, tmp_path / "models")
    name, spoiling, message = UNREADABLE[fault]
    spoiling(folder / "bmrl" / name)
    with pytest.raises(RepositoryError, match=message) as error:
        check_model(folder)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch_size": 2.5}, r"^max_batch_size: expected an integer >= 1, got "),
        ({"num_threads": 1.5}, r"^num_threads: expected an integer >= 1 and <= 2147483647, got "),
        ({"num_threads": 2**40}, r"^num_threads: expected an integer >= 1 and <= 2147483647, got "),
        ({"instances": True}, r"^instances: expected an integer >= 1 and <= 2147483647, got "),
        ({"instances": 2**31}, r"^instances: expected an integer >= 1 and <= 2147483647, got "),
        ({"version": 1.5}, r"^version: expected an integer >= 1 and <= 2147483647, got "),
        ({"version": True}, r"^version: expected an integer >= 1 and <= 2147483647, got "),
        ({"version": 10**30}, r"^version: expected an integer >= 1 and <= 2147483647, got "),
        ({"preferred_batch_sizes": 4}, r"^preferred_batch_sizes: expected a sequence of integers, got int$"),
        ({"preferred_batch_sizes": (1.5,)}, r"^preferred_batch_sizes: expected an integer, got "),
        ({"preferred_batch_sizes": "4"}, r"^preferred_batch_sizes: expected an integer, got "),
        ({"max_queue_delay": "x"}, r"^max_queue_delay: expected a number, got "),
        ({"max_queue_delay": float("nan")}, r"^max_queue_delay: expected 0 to 10 seconds, got nan$"),
        ({"ensemble": "no"}, r"^ensemble: expected True or False, got "),
        ({"ensemble": True, "max_pixels": 1e6}, r"^max_pixels: expected an integer >= 1 and <= 2147483647, got "),
        ({"ensemble": True, "max_bytes": 2**31}, r"^max_bytes: expected an integer >= 1 and <= 2147483647, got "),
        ({"format": ""}, r"^format for backend python: expected 'torchscript' or .*, got ''$"),
    ],
)
def test_refuses_options_of_other_types(model, tmp_path, options, message):
    with pytest.raises((DTypeError, RangeError), match=message):
        write_triton_repository(model, tmp_path / "models", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [None, 3, b"models", "", "a\0b"])
def test_refuses_what_is_no_path(model, folder):
    for call in (lambda: write_triton_repository(model, folder), lambda: TritonServer(folder)):
        with pytest.raises((DTypeError, RangeError), match=r"^folder: expected a path, got "):
            call()


def test_batching_of_a_compiled_package_is_refused(foreign, tmp_path):
    folder = shutil.copytree(foreign["torch_aoti"], tmp_path / "models")
    change("max_batch_size: 1", "max_batch_size: 2")(folder)
    with pytest.raises(RepositoryError, match="max_batch_size: expected 1 to 1, got 2"):
        check_model(folder)
    change("max_batch_size: 2", "max_batch_size: 1 dynamic_batching { }")(folder)
    with pytest.raises(RepositoryError, match="dynamic_batching: expected none for torch_aoti, got some"):
        check_model(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, r"^backend: expected 'python' or .*'onnxruntime', got 'tensorrt'$"),
        ({"backend": "pytorch", "format": "onnx"}, r"^format for backend pytorch: expected 'torchscript' or .*'onnx'$"),
        (
            {"backend": "torch_aoti", "max_batch_size": 2},
            r"^max_batch_size: expected at most 1 for .* torch_aoti, got 2$",
        ),
        ({"max_batch_size": 65}, r"^max_batch_size: expected at most 64 for backend python, got 65$"),
        (
            {"preferred_batch_sizes": (4, 16), "max_batch_size": 8},
            r"^preferred_batch_sizes: expected 1 to max_batch_size 8, got 16$",
        ),
        ({"max_queue_delay": 11}, r"^max_queue_delay: expected 0 to 10 seconds, got 11$"),
        ({"instances": 0}, r"^instances: expected an integer >= 1 and <= 2147483647, got 0$"),
        ({"version": 0}, r"^version: expected an integer >= 1 and <= 2147483647, got 0$"),
        ({"device": "cuda"}, r"^device: expected 'cpu' for backend python, got 'cuda'$"),
        ({"engine": "openvino"}, r"^engine: expected None for backend python and torchscript, got 'openvino'$"),
        ({"max_pixels": 9999}, r"^max_pixels, max_bytes: expected None without ensemble, got some$"),
        ({"max_pixels": 1023, "ensemble": True}, r"^max_pixels: expected at least 1024 for images of 32², got 1023$"),
        ({"max_bytes": 4095, "ensemble": True}, r"^max_bytes: expected at least 4096 for images of 32², got 4095$"),
    ],
)
def test_refuses_options_that_do_not_fit(model, tmp_path, options, message):
    with pytest.raises(RangeError, match=message):
        write_triton_repository(model, tmp_path / "models", **options)
    assert not list(tmp_path.iterdir())


def test_refuses_an_exported_file_that_the_backend_does_not_run(foreign, tmp_path):
    file = foreign["onnxruntime"].parent / "model.onnx"
    with pytest.raises(
        RangeError, match=r"^format of .*model.onnx for backend pytorch: expected 'torchscript', got 'on"
    ):
        write_triton_repository(Artifact(file), tmp_path / "models", backend="pytorch")
    copy = Path(shutil.copy(file, tmp_path / "model.onnx"))
    with pytest.raises(BMRLError, match=r"artifact.json: expected the description of model.onnx, got nothing"):
        write_triton_repository(Artifact(copy), tmp_path / "models")


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime"])
def test_a_backend_that_moves_its_file_serves_it_on_a_gpu(foreign, tmp_path, name):
    file = Artifact(foreign[name].parent / BACKENDS[name][1])
    folder = write_triton_repository(file, tmp_path / "models", backend=name, device="cuda")
    check_model(folder)
    (group,) = text_format.Parse((folder / "bmrl" / "config.pbtxt").read_text(), ModelConfig()).instance_group
    assert group.kind == group.KIND_GPU


def test_a_compiled_file_is_served_on_the_device_that_it_was_made_for(foreign, tmp_path):
    file = Artifact(foreign["torch_aoti"].parent / "model.pt2")
    with pytest.raises(RepositoryError, match=r"instance_group\.kind: expected KIND_CPU, got KIND_GPU"):
        write_triton_repository(file, tmp_path / "models", backend="torch_aoti", device="cuda")


def test_a_path_is_a_model_folder_and_no_exported_file(foreign, tmp_path):
    with pytest.raises(MissingFileError, match=r"^model: expected a folder .*, got .*model.pt$"):
        write_triton_repository(foreign["pytorch"].parent / "model.pt", tmp_path / "models")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onnx"}, r"^format: expected None with an artifact, .*, got one$"),
        ({"images": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)}, r"^images: expected None with an artifact"),
        ({"backend": "torch_aoti", "max_queue_delay": 0.1}, r"^preferred_batch_sizes, max_queue_delay: expected none"),
    ],
)
def test_refuses_options_that_would_be_ignored(foreign, tmp_path, options, message):
    name = options.get("backend", "pytorch")
    with pytest.raises(RangeError, match=message):
        write_triton_repository(Artifact(foreign[name].parent / BACKENDS[name][1]), tmp_path / "models", **options)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_answers_otherwise_than_at_export_is_refused(foreign, tmp_path):
    file = Path(shutil.copy(foreign["onnxruntime"].parent / "model.onnx", tmp_path / "model.onnx"))
    entry = read_entries(foreign["onnxruntime"].parent)["model.onnx"]
    write_entries(tmp_path, {"model.onnx": entry})
    write_triton_repository(Artifact(file), tmp_path / "models", engine="onnxruntime")
    entry["verification"]["probe"]["probabilities"][0] += 0.01
    write_entries(tmp_path, {"model.onnx": entry})
    with pytest.raises(
        BMRLError,
        match=r"^engine: expected an answer by onnxruntime as at export within 0.0001, got a difference of 0.01",
    ):
        write_triton_repository(Artifact(file), tmp_path / "others", engine="onnxruntime")
    assert not (tmp_path / "others").exists()


def test_a_version_that_appears_during_an_export_is_kept(foreign, tmp_path, monkeypatch):
    file, folder = foreign["pytorch"].parent / "model.pt", tmp_path / "models"
    write_triton_repository(Artifact(file), folder)
    write_config = triton_repository.write_config

    def write_config_late(*arguments):
        monkeypatch.setattr(triton_repository, "write_config", write_config)
        write_triton_repository(Artifact(file), folder, version=2)
        write_config(*arguments)

    monkeypatch.setattr(triton_repository, "write_config", write_config_late)
    write_triton_repository(Artifact(file), folder, version=3)
    assert sorted(entry.name for entry in (folder / "bmrl").iterdir() if entry.is_dir()) == ["1", "2", "3"]


def test_refuses_a_folder_that_cannot_be_replaced(foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepositoryError, match=r"^\.: expected a folder that can be replaced, got a mount point or"):
        write_triton_repository(Artifact(foreign["pytorch"].parent / "model.pt"), ".")


def test_versions_stay_beside_each_other_if_they_fit(foreign, model, tmp_path):
    file = foreign["pytorch"].parent / "model.pt"
    folder = write_triton_repository(Artifact(file), tmp_path / "models")
    write_triton_repository(Artifact(file), folder, version=12)
    assert sorted(path.name for path in (folder / "bmrl").iterdir() if path.is_dir()) == ["1", "12"]
    path, _ = check_model(folder)
    assert path.parent.name == "12"
    with pytest.raises(RepositoryError, match=r"expected versions of the same backend, .* as version 13, got others"):
        write_triton_repository(Artifact(file), folder, version=13, num_threads=2)
    write_triton_repository(Artifact(file), folder, version=12)
    assert sorted(path.name for path in (folder / "bmrl").iterdir() if path.is_dir()) == ["1", "12"]
