from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from bmrl.errors import (
    ArtifactError,
    BMRLError,
    ConfigError,
    MissingExtraError,
    MissingFileError,
    RangeError,
    RepositoryError,
)
from bmrl.export import (
    Artifact,
    ServedModel,
    TritonClient,
    TritonServer,
    export_model,
    load_artifact,
    write_triton_repository,
)
from bmrl.export.triton.repository.checks import check_labels_fit, check_model
from bmrl.export.triton.repository.config import read_triton_config
from bmrl.export.triton.repository.ensemble import has_ensemble
from bmrl.models import build_model, save_model

pytestmark = pytest.mark.slow


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]  # a server adds bytecode
    return sorted(str(path.relative_to(folder)) for path in paths)


LAYOUT = [
    "bmrl/1/artifact.json",
    "bmrl/1/artifact_runtime.py",
    "bmrl/1/model.pt",
    "bmrl/1/model.py",
    "bmrl/config.pbtxt",
    "bmrl/labels.txt",
]


def test_layout(repository):
    assert files(repository) == LAYOUT
    assert list(repository.parent.iterdir()) == [repository]


def test_configuration_parses_strictly_and_agrees_with_the_model(repository, model):
    text = (repository / "bmrl" / "config.pbtxt").read_text()
    config = text_format.Parse(text, ModelConfig())  # an unknown field or a wrong type raises
    assert (config.name, config.backend, config.max_batch_size) == ("bmrl", "python", 8)
    (images,) = config.input
    assert (images.name, images.data_type, list(images.dims)) == ("images", 2, [3, 32, 32])  # 2 = TYPE_UINT8
    outputs = [(output.name, output.data_type, list(output.dims)) for output in config.output]
    assert outputs == [("probabilities", 11, [4]), ("embedding", 11, [24]), ("score", 11, [1])]  # 11 = TYPE_FP32
    assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_CPU]
    assert config.HasField("dynamic_batching")
    assert not config.HasField("response_cache")  # the server's cache replays errors as successes
    (warmup,) = config.model_warmup
    assert warmup.inputs["images"].zero_data
    assert list(warmup.inputs["images"].dims) == [3, 32, 32]
    assert config.parameters["num_threads"].string_value == "1"


def test_labels_are_the_classes_in_order(repository, model):
    config = read_triton_config(repository)
    assert [output.label_filename for output in config.output] == ["labels.txt", "", ""]
    labels = (repository / "bmrl" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == [generator.name for generator in model.config.generators]


def test_graph_answers_as_the_model(repository, images, eager):
    outputs = load_artifact(repository / "bmrl" / "1" / "model.pt").run(images)
    for output, expected in zip(outputs, eager, strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


def test_model_file_needs_torch_alone(repository):
    tree = ast.parse((repository / "bmrl" / "1" / "model.py").read_text())
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"torch"}


def test_defaults_and_replacing_an_own_repository(model, tmp_path):
    folder = tmp_path / "models"
    write_triton_repository(model, folder, max_batch_size=2)
    write_triton_repository(model, folder)
    config = read_triton_config(folder)
    assert config.max_batch_size == 64
    assert "num_threads" not in config.parameters
    assert files(folder) == LAYOUT
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failed_export_leaves_the_old_repository(model, tmp_path):
    folder = write_triton_repository(model, tmp_path / "models", max_batch_size=3)
    broken = build_model(model.config)
    broken.head[-1].bias.data[0] = torch.nan
    with pytest.raises(BMRLError, match="got a difference of nan"):
        write_triton_repository(broken, folder)
    assert read_triton_config(folder).max_batch_size == 3
    assert files(folder) == LAYOUT
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("file", "text", "got"),
    [
        ("thesis.txt", "", "got 'thesis.txt' in it"),
        ("lost+found/thesis.txt", "", r"got 'lost\+found' in it"),
        ("bmrl/notes.txt", "", "got a model of another origin"),
        ("bmrl/config.pbtxt", 'name: "bmrl" backend: "python"', "got a model of another origin"),
        ("bmrl/config.pbtxt", "not a configuration", "got a model of another origin"),
    ],
)
def test_refuses_a_foreign_folder(model, tmp_path, file, text, got):
    path = tmp_path / "folder" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(
        RepositoryError, match=f"folder: expected an empty folder or a repository written by bmrl, {got}"
    ):
        write_triton_repository(model, tmp_path / "folder")
    assert path.read_text() == text


def test_refuses_a_file_and_a_missing_parent(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="file: expected a folder, got a file"):
        write_triton_repository(model, tmp_path / "file")
    with pytest.raises(MissingFileError, match="a/b: expected an existing parent folder"):
        write_triton_repository(model, tmp_path / "a" / "b")


def test_accepts_an_empty_folder(model, tmp_path):
    assert files(write_triton_repository(model, tmp_path)) == LAYOUT


@pytest.mark.parametrize("option", ["max_batch_size", "num_threads"])
def test_refuses_numbers_that_are_not_positive(model, tmp_path, option):
    with pytest.raises(RangeError, match=f"{option}: expected an integer >= 1.*, got 0"):
        write_triton_repository(model, tmp_path / "models", **{option: 0})


@pytest.mark.parametrize("name", ["one\ntwo", "one\u2028two", "one\x85two", ""])
def test_refuses_a_class_name_that_is_not_one_line(name):
    """Names of an exported file, which anybody may have written; the configuration of a model takes none of them."""
    with pytest.raises(ConfigError, match=f"^generators: expected names of one line, got {re.escape(repr(name))}$"):
        check_labels_fit(("fine", name))


def test_reading_names_line_and_column_of_an_unknown_field(tmp_path):
    with pytest.raises(RepositoryError, match=r"expected a Triton repository, got no bmrl/config.pbtxt"):
        read_triton_config(tmp_path)
    (tmp_path / "bmrl").mkdir()
    (tmp_path / "bmrl" / "config.pbtxt").write_text('name: "bmrl"\nmax_bath_size: 3\n')
    with pytest.raises(
        RepositoryError, match=r'config.pbtxt: expected a model configuration, got 2:1 : .*max_bath_size"'
    ):
        read_triton_config(tmp_path)


def test_names_the_extra_that_brings_tritonclient(monkeypatch, repository):
    for name in ("tritonclient", "tritonclient.grpc", "tritonclient.grpc.model_config_pb2"):
        monkeypatch.setitem(sys.modules, name, None)  # any import of it fails
    for call in (lambda: TritonClient("127.0.0.1:1"), lambda: read_triton_config(repository)):
        with pytest.raises(
            MissingExtraError, match=r"^tritonclient: not installed; it comes with the extra \[serve\] of"
        ):
            call()


def test_a_full_disk_leaves_the_old_repository(model, repository, tmp_path, tmpfs):
    """A real one, of memory; it holds one repository, and not a second next to it."""
    size = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    disk = tmpfs(f"size={int(1.6 * size)}")
    folder = write_triton_repository(Artifact(repository / "bmrl" / "1" / "model.pt"), disk / "models")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    save_model(model, tmp_path / "model")
    for source in ([tmp_path / "model"], ["--artifact", repository / "bmrl" / "1" / "model.pt"]):
        command = [sys.executable, "-m", "bmrl", "export", *source, "--format", "triton", "--ensemble"]
        ended = subprocess.run([*command, "--out", folder], capture_output=True, text=True, timeout=240, check=False)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
        assert ended.stderr.startswith("bmrl: error: ")
        assert "No space left on device" in ended.stderr
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        assert list(disk.iterdir()) == [folder]
    check_model(folder)


def test_a_place_that_cannot_be_written_is_named(repository, tmpfs):
    """A file system that is read-only, as a volume of Kubernetes may be."""
    disk = tmpfs("ro")
    with pytest.raises(
        RepositoryError, match=rf"^{disk}/models: expected a place that can be written, got Read-only file system$"
    ):
        write_triton_repository(Artifact(repository / "bmrl" / "1" / "model.pt"), disk / "models")
    with pytest.raises(RepositoryError, match=r"got a mount point or .*; name a new folder in it$"):
        write_triton_repository(Artifact(repository / "bmrl" / "1" / "model.pt"), disk)


WRITE_OFTEN = """
import sys
from bmrl.export import Artifact, write_triton_repository
sys.stdin.read()
for version in range(25):
    write_triton_repository(Artifact(sys.argv[1]), sys.argv[2], ensemble=version % 2 == 0)
"""


@pytest.mark.server
def test_two_exports_at_once_and_no_half_written_repository_is_ever_served(model, repository, images, eager, tmp_path):
    """Two processes replace one repository all the time; a reader finds a whole one of either, or none yet."""
    (tmp_path / "other").mkdir()
    generators = model.config.generators[:3]
    other = build_model(dataclasses.replace(model.config, generators=generators))
    files = [repository / "bmrl" / "1" / "model.pt", export_model(other, tmp_path / "other" / "model.pt").path]
    folder = tmp_path / "models"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, str(file), str(folder)], stdin=subprocess.PIPE)
        for file in files
    ]
    found, broken = collections.Counter(), []
    for writer in writers:  # both have started: off they go
        writer.stdin.close()
    while any(writer.poll() is None for writer in writers):
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)  # stays with the folder when that is moved aside
            try:
                path, _ = check_model(f"/proc/self/fd/{handle}")
                has_ensemble(path.parents[2], ServedModel.from_config(read_triton_config(path.parents[2])))
                found[len(load_artifact(path).run(images)[0][0])] += 1
            except (ArtifactError, MissingFileError, RepositoryError) as error:
                if os.path.samestat(os.fstat(handle), folder.stat()):  # or else it has been replaced and removed
                    broken.append(error)
            finally:
                os.close(handle)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert set(found) == {3, 4}
    assert not broken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "other"]
    write_triton_repository(Artifact(files[0]), folder)
    with TritonServer(folder) as server, TritonClient(server.grpc_url) as client:
        np.testing.assert_allclose(client.infer(images).probabilities, eager[0].numpy(), rtol=0, atol=1e-4)


def test_takes_a_model_by_its_folder(model, tmp_path):
    folder = write_triton_repository(save_model(model, tmp_path / "model"), tmp_path / "models")
    _, description = check_model(folder)
    assert [entry["name"] for entry in description["generators"]] == [one.name for one in model.config.generators]
