"""Every format, exported by the command line once, and looked at from all sides."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from bmrl.errors import (
    ArtifactError,
    BMRLError,
    DeviceError,
    DTypeError,
    MissingExtraError,
    MissingFileError,
    RangeError,
    ShapeError,
    VerificationError,
)
from bmrl.export import (
    FORMATS,
    Artifact,
    TritonClient,
    TritonServer,
    compare_formats,
    export_model,
    load_artifact,
    write_triton_repository,
)
from bmrl.export.artifact import read_entries, write_entries
from bmrl.export.probe import probe_image
from bmrl.export.standalone import artifact_runtime
from bmrl.export.standalone.artifact_runtime import sha256_of
from bmrl.export.verification import reference, verify
from bmrl.export.writers.onnx import OPSET
from bmrl.inference import Limits, limits_of
from bmrl.models import build_model, save_model

# Of probabilities, embedding and score. A sharp head on untrained features, as the fixture's, tells nothing of int8.
TOLERANCE = {"fp32": (1e-4, 1e-4, 1e-4), "bf16": (6e-2, 1e-2, 6e-2), "int8": (1.0, 0.2, 1.0)}


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def run(saved, images, tmp_path_factory):
    """Return the command's end, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "images").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "images" / f"{index:02}.png")
    command = [sys.executable, "-m", "bmrl", "export", saved, "--all", "--out", folder / "exports"]
    ended = subprocess.run(
        [*map(str, command), "--images", str(folder / "images")], capture_output=True, text=True, timeout=570
    )
    assert ended.returncode == 0, ended.stderr
    return ended, folder / "exports"


@pytest.fixture(scope="module")
def exports(run):
    return run[1]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
]  # the first test waits for the command, and the command for a C++ compiler


@pytest.fixture(params=FORMATS)
def file(request, exports):
    return exports / f"{request.param}{FORMATS[request.param].suffix}"


@pytest.mark.parametrize("batch", [1, 3, 19])
def test_answers_as_the_model(file, images, eager, batch):
    artifact = load_artifact(file)
    outputs = artifact.run(images[:batch])
    limits = TOLERANCE[artifact.description["precision"]]
    for output, expected, limit in zip(outputs, eager, limits, strict=True):
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, expected[:batch], rtol=0, atol=limit)


def test_describes_itself_beside_and_within(file, saved, model, images):
    entry = load_artifact(file).description
    assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert entry["bytes"] == file.stat().st_size
    assert [one["name"] for one in entry["generators"]] == [one.name for one in model.config.generators]
    assert [one["manipulation"] for one in entry["generators"]] == ["none", "EFS", "FS", "AM"]
    assert entry["thresholds"] == list(model.config.decision.thresholds)
    assert entry["limits"] == limits_of(model).to_dict()
    assert entry["input"] == {
        "name": "images",
        "dtype": "uint8",
        "shape": ["batch", 3, 32, 32],
        "channels": "RGB",
        "batch": [1, 64],
    }
    assert [(one["name"], one["shape"]) for one in entry["outputs"]] == [
        ("probabilities", ["batch", 4]),
        ("embedding", ["batch", 24]),
        ("score", ["batch", 1]),
    ]
    assert entry["source"]["model.safetensors"] == sha256_of(saved / "model.safetensors")
    assert entry["versions"]["torch"] == torch.__version__
    verified = entry["verification"]
    assert verified["images"] == 10  # half of the 19; int8 was calibrated with the others
    assert verified["batches"] == [1, 3, 64]
    assert not verified["synthetic"]
    if entry["precision"] == "fp32":
        assert 0 <= verified["probability_difference"] <= 1e-4
        assert (verified["top1_agreement"], verified["decisions_changed"]) == (1.0, 0)
    within = _within(file)
    assert within
    assert within == {name: entry[name] for name in within}


def _within(file):
    """Return the description that the file itself holds, read by means other than ours."""
    if file.suffix == ".onnx":
        (prop,) = onnx.load(file).metadata_props
        return json.loads(prop.value)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any("aotinductor" in name for name in names):
            metadata = [json.loads(archive.read(name)) for name in names if name.endswith("_metadata.json")]
            return json.loads(metadata[0]["artifact.json"])
        (name,) = (name for name in names if name.endswith("extra/artifact.json"))
        return json.loads(archive.read(name))


def test_onnx_is_valid_and_takes_any_batch(exports):
    for name in ("onnx", "onnx-int8"):
        proto = onnx.load(exports / f"{name}.onnx")
        onnx.checker.check_model(proto, full_check=True)
        assert [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")] == [OPSET]
        (images,) = proto.graph.input
        assert images.name == "images"
        assert [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim] == ["batch", 3, 32, 32]
        assert [output.name for output in proto.graph.output] == ["probabilities", "embedding", "score"]
    quantized = [node.op_type for node in proto.graph.node]
    assert quantized.count("QuantizeLinear") > 10
    assert proto.ByteSize() < 0.6 * (exports / "onnx.onnx").stat().st_size


def test_int8_leaves_what_is_sensitive_in_float32(exports, model):
    """Two convolutions per view, and the head, get no dequantized weights; every other one does."""
    graph = onnx.load(exports / "onnx-int8.onnx").graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    channels = {entry.name: list(entry.dims)[:2] for entry in graph.initializer}
    exact = [node for node in graph.node if node.op_type in ("Conv", "Gemm") and node.input[1] not in dequantized]
    sizes = [channels[node.input[1]] for node in exact]
    assert sorted(sizes) == sorted([[4, 24], [8, 1], [8, 3], [8, 3], [16, 8], [16, 8], [16, 8]])
    assert sum(node.op_type == "MatMul" and node.input[1] in dequantized for node in graph.node) > 5


def test_bf16_holds_bf16_but_for_the_head(exports):
    graph = torch.jit.load(exports / "torchscript-bf16.pt")
    kinds = {name: tensor.dtype for name, tensor in graph.state_dict().items()}
    assert {kinds.pop(name) for name in [*kinds] if ".head." in name} == {torch.float32}
    assert set(kinds.values()) == {torch.bfloat16}
    assert (exports / "torchscript-bf16.pt").stat().st_size < (exports / "torchscript.pt").stat().st_size


def test_tells_nothing_of_this_machine(exports):
    """No source files' folders; TorchScript always names them, and a compiled package the compiler's."""
    for name, kind in FORMATS.items():
        if kind.kind in ("pt2", "onnx"):
            data = (exports / f"{name}{kind.suffix}").read_bytes()
            assert b"site-packages" not in data, name
            assert b"/bmrl/" not in data, name


def test_table_is_printed_and_saved(run):
    ended, exports = run
    rows = json.loads((exports / "exports.json").read_text())
    assert [row["format"] for row in rows if row["engine"] is None] == list(FORMATS)
    for row in rows:
        assert row["bytes"] == (exports / row["file"]).stat().st_size
        for batch in ("1", "8"):
            middle, low, high = row["speed"][batch]["relative"]
            assert 0 < low <= middle <= high
    table = (exports / "exports.md").read_text()
    assert table in ended.stdout
    lines = table.splitlines()
    assert lines[0].startswith("| format | MiB | images/s at batch 1 | times eager |")
    assert len(lines) == 2 + len(rows)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert ended.stdout.endswith(f"wrote {exports}\n")


def test_a_format_that_fails_is_a_row_and_no_file(model, images, tmp_path):
    broken = build_model(model.config).eval()
    broken.head[-1].bias.data[0] = torch.nan
    (row,) = compare_formats(broken, tmp_path, images=images, formats=["torchscript"]).rows
    assert row.error.startswith("probabilities: expected the exported graph to answer as the model within 0.0001")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exports.json", "exports.md"]
    assert "| torchscript | failed: probabilities: " in (tmp_path / "exports.md").read_text()


def test_a_format_that_fails_takes_an_earlier_file_of_its_name_away(model, images, tmp_path):
    (good,) = compare_formats(model, tmp_path, images=images, formats=["torchscript"]).rows
    assert (tmp_path / good.file).is_file()
    broken = build_model(model.config).eval()
    broken.head[-1].bias.data[0] = torch.nan
    compare_formats(broken, tmp_path, images=images, formats=["torchscript"])
    assert not (tmp_path / good.file).exists()
    assert read_entries(tmp_path) == {}


@pytest.fixture
def copied(exports, tmp_path):
    """Return a folder with a TorchScript and an ONNX file of our own."""
    for name in ("torchscript.pt", "onnx.onnx"):
        (tmp_path / name).write_bytes((exports / name).read_bytes())
    write_entries(tmp_path, {name: read_entries(exports)[name] for name in ("torchscript.pt", "onnx.onnx")})
    return tmp_path


def test_refuses_another_content(copied):
    path = copied / "torchscript.pt"
    good = path.read_bytes()
    middle = len(good) // 2
    for bad in (good[:-1], good[:middle], b"", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
        path.write_bytes(bad)
        with pytest.raises(ArtifactError, match=r"torchscript.pt: expected the content with SHA-256 \w{64}, got \w"):
            load_artifact(path)
    path.write_bytes((copied / "onnx.onnx").read_bytes())
    with pytest.raises(ArtifactError, match=r"torchscript.pt: expected the content with SHA-256"):
        load_artifact(path)
    path.write_bytes(good)
    load_artifact(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a description written by bmrl, got JSONDecodeError: "),
        ("[]", "expected a description written by bmrl, got TypeError: "),
        ('{"schema": 0, "artifacts": {}}', "expected schema 2, got 0; export the file again"),
        ('{"schema": 2, "artifacts": {}}', "expected an entry for onnx.onnx, got none"),
        ('{"schema": 2, "artifacts": {"a": {}}}', "expected an entry for onnx.onnx, got a"),
        (
            '{"schema": 2, "artifacts": {"onnx.onnx": {}}}',
            "expected an entry with the hash of onnx.onnx, got none in it",
        ),
        (
            '{"schema": 2, "artifacts": {"onnx.onnx": 3}}',
            "expected an entry with the hash of onnx.onnx, got none in it",
        ),
        ('{"schema": 2, "artifacts": []}', "expected a description written by bmrl, got entries that are none"),
        ("[" * 100_000, "expected a description written by bmrl, got RecursionError: "),
        ('{"schema": 2' + "0" * 5000, "expected a description written by bmrl, got ValueError: "),
        ("null", "expected a description written by bmrl, got TypeError: "),
    ],
)
def test_refuses_a_damaged_description(copied, text, message):
    (copied / "artifact.json").write_text(text)
    with pytest.raises(ArtifactError, match=f"artifact.json: {message}"):
        load_artifact(copied / "onnx.onnx")


def test_names_a_missing_file_and_a_missing_description(copied):
    with pytest.raises(MissingFileError, match=r"none.pt: expected an exported file, got nothing there"):
        load_artifact(copied / "none.pt")
    (copied / "artifact.json").unlink()
    with pytest.raises(MissingFileError, match=r"artifact.json: expected the description of onnx.onnx"):
        load_artifact(copied / "onnx.onnx")


def test_refuses_a_file_of_another_format_than_it_says(stand_in, tmp_path):
    """Both descriptions agree, and the file is another one all the same."""
    path = tmp_path / "model.pt"
    graph = torch.jit.script(torch.nn.ReLU())
    described = {"device": "cpu", "versions": {"torch": torch.__version__}}
    for kind in ("onnx", "pt2"):
        stand_in(graph, path, format=kind, **described)
        with pytest.raises(ArtifactError, match=rf"model.pt: expected a file of format {kind}, got one with '"):
            load_artifact(path)
    for kind in ("pickle", ["torchscript"], None):
        stand_in(graph, path, format=kind, **described)
        known = "torchscript, pt2, aoti, onnx"
        with pytest.raises(ArtifactError, match=rf"expected a format of {known}, got {re.escape(repr(kind))}$"):
            load_artifact(path)


EDITS = {
    "generators": lambda entry: entry[::-1],
    "thresholds": lambda entry: [0.1],
    "limits": lambda entry: entry | {"probability": 0.5},
    "image_size": lambda entry: 64,
    "embed_dim": lambda entry: 12,
    "format": lambda entry: "torchscript" if entry == "onnx" else "onnx",
    "precision": lambda entry: "bf16" if entry == "fp32" else "fp32",
    "device": lambda entry: "cuda",
    "input": lambda entry: entry | {"channels": "BGR"},
    "outputs": lambda entry: entry[::-1],
    "source": lambda entry: {},
    "versions": lambda entry: entry | {"torch": "2.0"},
    "processor": lambda entry: "AMX-9",
}


@pytest.mark.parametrize("name", EDITS)
def test_refuses_a_description_that_was_edited(file, tmp_path, name):
    """What the file holds of itself, and what ``artifact.json`` next to it says, are compared, either way round."""
    entry = read_entries(file.parent)[file.name]
    path = tmp_path / file.name
    path.symlink_to(file)
    write_entries(tmp_path, {file.name: entry | {name: EDITS[name](entry[name])}})
    with pytest.raises(ArtifactError, match=rf"artifact.json: expected the {name} that {file.name} itself holds, got"):
        load_artifact(path)
    del entry[name]
    write_entries(tmp_path, {file.name: entry})
    with pytest.raises(ArtifactError, match=rf"artifact.json: expected the {name} that {file.name} itself holds, got"):
        load_artifact(path)


def test_refuses_what_is_no_file(copied):
    path = copied / "torchscript.pt"
    path.unlink()
    for make, message in (
        (path.mkdir, "expected an exported file, got a folder"),
        (lambda: os.mkfifo(path), "expected an exported file, got no regular file"),
        (lambda: path.symlink_to("/dev/zero"), "expected an exported file, got no regular file"),
    ):
        make()
        with pytest.raises(ArtifactError, match=message):
            load_artifact(path)
        path.rmdir() if path.is_dir() else path.unlink()
    path.symlink_to(path)
    with pytest.raises(MissingFileError, match="expected an exported file, got nothing there"):
        load_artifact(path)


def test_refuses_a_description_that_is_no_file(copied):
    listing = copied / "artifact.json"
    listing.unlink()
    for make in (listing.mkdir, lambda: os.mkfifo(listing), lambda: listing.symlink_to("/dev/zero")):
        make()
        with pytest.raises(
            ArtifactError, match=r"artifact.json: expected a description written by bmrl, got no regular"
        ):
            load_artifact(copied / "onnx.onnx")
        listing.rmdir() if listing.is_dir() else listing.unlink()
    listing.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match=r"artifact.json: expected JSON, got other bytes"):
        load_artifact(copied / "onnx.onnx")
    listing.write_bytes(b" " * (artifact_runtime.MOST_BYTES + 1))
    with pytest.raises(
        ArtifactError, match=r"artifact.json: expected a description of at most 67108864 bytes, got more"
    ):
        load_artifact(copied / "onnx.onnx")


@pytest.mark.parametrize("missing", ["format", "device", "verification", "precision", "image_size"])
def test_names_what_an_entry_lacks(exports, stand_in, tmp_path, missing):
    """As in the file itself: what the two do not share is refused before."""
    path = tmp_path / "torchscript.pt"
    entry = read_entries(exports)[path.name]
    del entry[missing]
    stand_in(torch.jit.script(torch.nn.ReLU()), path, **entry)
    with pytest.raises(ArtifactError, match=r"expected an entry|expected a format|'image_size'") as error:
        load_artifact(path)
    assert "\n" not in str(error.value)


def test_refuses_another_pytorch_or_processor(exports, monkeypatch):
    path = exports / "aoti.pt2"
    version = torch.__version__
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.0")
        with pytest.raises(
            ArtifactError, match=rf"expected torch {re.escape(version)}, as where .*, got 2.0; export it again$"
        ):
            load_artifact(path)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AMX-9")
        with pytest.raises(
            ArtifactError, match=r"aoti.pt2: expected processor \w+, as where it was exported, got AMX-9"
        ):
            load_artifact(path)
    features = artifact_runtime.processor_features()
    assert features == read_entries(exports)["aoti.pt2"]["processor_features"]
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if re.match("flags|Features", line))
    assert {*features} <= {*flags.split()}
    assert any(name.startswith(("sse", "asimd")) for name in features)
    with monkeypatch.context() as patch:
        patch.setattr(artifact_runtime, "processor_features", lambda: features[2:])
        names = ", ".join(features[:2])
        with pytest.raises(ArtifactError, match=rf"aoti.pt2: expected a processor with {names}, as where it was"):
            load_artifact(path)


LOAD = """
import os, subprocess, sys
import torch
from bmrl.export import load_artifact

def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "os.system"):
        raise SystemExit(f"started {arguments}")

sys.addaudithook(refuse)
images, _, path, out = torch.load(sys.argv[1])
torch.save(load_artifact(path).run(images), out)
"""


def test_a_compiled_file_loads_without_a_compiler(exports, images, eager, tmp_path):
    """In a fresh process with an empty cache and no program in reach; a program that is started ends it."""
    (tmp_path / "cache").mkdir()
    torch.save((images, None, str(exports / "aoti.pt2"), str(tmp_path / "answer")), tmp_path / "question")
    hidden = ("PATH", "CXX", "CC", "TRITON_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PATH": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "question")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, "")
    torch.testing.assert_close(torch.load(tmp_path / "answer"), eager, rtol=0, atol=1e-4)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.server
def test_a_compiled_file_is_served_without_a_compiler(exports, images, eager, tmp_path, monkeypatch):
    """The server starts its models with bash and env; no other program is in reach, and nothing is compiled."""
    write_triton_repository(Artifact(exports / "aoti.pt2"), tmp_path / "models")
    cache, programs = tmp_path / "cache", tmp_path / "programs"
    cache.mkdir()
    programs.mkdir()
    for name in ("bash", "env"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    for name in ("CXX", "CC"):
        monkeypatch.delenv(name, raising=False)
    with TritonServer(tmp_path / "models") as server, TritonClient(server.grpc_url) as client:
        for output, expected in zip(client.infer(images), eager, strict=True):
            np.testing.assert_allclose(output, expected.numpy(), rtol=0, atol=1e-4)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("change", [1e-3, float("nan")])
def test_refuses_a_file_that_answers_otherwise_than_at_export(exports, tmp_path, change):
    """As a processor of another kind may."""
    path = tmp_path / "onnx.onnx"
    path.symlink_to(exports / "onnx.onnx")
    entry = read_entries(exports)["onnx.onnx"]
    load_artifact(exports / "onnx.onnx")
    entry["verification"]["probe"]["embedding"][3] += change
    write_entries(tmp_path, {path.name: entry})
    with pytest.raises(
        VerificationError, match=r"onnx.onnx: expected an answer as at export within 0.0001, got a diff"
    ):
        load_artifact(path)
    load_artifact(path, probe=False)
    entry["verification"]["probe"]["embedding"].pop()
    write_entries(tmp_path, {path.name: entry})
    with pytest.raises(VerificationError, match=r"onnx.onnx: expected 28 numbers, as at export, got 29"):
        load_artifact(path)


@pytest.mark.parametrize(("name", "factor"), [("torchscript-bf16", 0.9), ("onnx-int8", 0.9)])
def test_an_answer_within_what_a_processor_may_change_is_taken(exports, tmp_path, name, factor):
    suffix = FORMATS[name].suffix
    path = tmp_path / f"{name}{suffix}"
    path.symlink_to(exports / path.name)
    entry = read_entries(exports)[path.name]
    limit = {"bf16": 2e-2, "int8": 5e-2}[entry["precision"]]
    for share, kind in ((0.9, None), (1.1, VerificationError)):
        probe = load_artifact(exports / path.name).run(probe_image(32))[0][0]
        entry["verification"]["probe"]["probabilities"] = (probe + share * limit).tolist()
        write_entries(tmp_path, {path.name: entry})
        with contextlib.nullcontext() if kind is None else pytest.raises(kind):
            load_artifact(path)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (torch.zeros(1, 3, 32, 32), DTypeError, "images: expected torch.uint8, got torch.float32"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), ShapeError, "images: expected shape "),
        (torch.zeros(1, 3, 32, 31, dtype=torch.uint8), ShapeError, "images: expected width = 32, got 31"),
        (torch.zeros(0, 3, 32, 32, dtype=torch.uint8), ShapeError, "images: expected a batch of 1 to 64, got 0"),
        (torch.zeros(65, 3, 32, 32, dtype=torch.uint8), ShapeError, "images: expected a batch of 1 to 64, got 65"),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device="meta"),
            DeviceError,
            "images: expected a tensor on the CPU",
        ),
        ([[1]], DTypeError, "images: expected a torch.Tensor, got list"),
    ],
)
def test_an_opened_file_takes_only_what_it_was_made_for(exports, given, kind, message):
    with pytest.raises(kind, match=message):
        load_artifact(exports / "torchscript.pt", probe=False).run(given)


class Evil:
    """What a pickle may do: here it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_within_a_pt2_file_is_not_run(exports, tmp_path):
    path = tmp_path / "pt2.pt2"
    with zipfile.ZipFile(exports / "pt2.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("sample_inputs/model.pt"):
                torch.save(Evil(tmp_path / "ran"), tmp_path / "evil")
                data = (tmp_path / "evil").read_bytes()
            new.writestr(name, data)
    entry = read_entries(exports)["pt2.pt2"] | {"sha256": sha256_of(path)}
    write_entries(tmp_path, {"pt2.pt2": entry})
    with pytest.raises(ArtifactError, match=r"pt2.pt2: expected a file of format pt2, got one with '.*"):
        load_artifact(path)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil", weights_only=False)  # it would have
    assert (tmp_path / "ran").exists()


def test_a_changed_decision_fails_though_the_numbers_are_near(exports, model, images):
    path = exports / "torchscript.pt"
    expected = reference(model, images)
    best = expected.probabilities.max(1)
    near = expected.probabilities.clone()
    near[3, best.indices[3]] += 5e-5

    def described(threshold):
        limits = Limits(unseen=threshold, seen=threshold, probability=0)
        return {"thresholds": [threshold], "limits": limits.to_dict()}

    verify(path, expected._replace(probabilities=near), described(0.5), exact=True)
    with pytest.raises(BMRLError, match=r"^probabilities: expected the decisions of the model, got 1 others of 19$"):
        verify(path, expected._replace(probabilities=near), described(best.values[3].item() + 2.5e-5), exact=True)
    far = near + 1e-3
    with pytest.raises(BMRLError, match=r"within 0.0001, got a difference of 0.001\d* in batches of 1$"):
        verify(path, expected._replace(probabilities=far), described(0.5), exact=True)
    found = verify(path, expected._replace(probabilities=far), described(best.values[3].item() + 5e-4), exact=False)
    assert found.decisions_changed >= 1
    assert found.probability_difference == pytest.approx(1.05e-3, abs=1e-5)


def test_a_foreign_description_stops_an_export_before_the_work(model, tmp_path):
    (tmp_path / "artifact.json").write_text('{"mine": 1}')
    with pytest.raises(ArtifactError, match=r"artifact.json: expected a description written by bmrl, got KeyError"):
        export_model(model, tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["artifact.json"]
    assert (tmp_path / "artifact.json").read_text() == '{"mine": 1}'


def test_two_exports_at_once_leave_one_that_is_whole(saved, images, eager, tmp_path):
    command = [sys.executable, "-m", "bmrl", "export", str(saved), "--out", str(tmp_path / "model"), "--format"]
    running = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in ("torchscript", "onnx")]
    assert [one.wait(240) for one in running] == [0, 0]
    torch.testing.assert_close(load_artifact(tmp_path / "model").run(images)[0], eager[0], rtol=0, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact.json", "model"]


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from bmrl.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_is_full_leaves_the_old_export(saved, exports, images, tmp_path):
    """No file may grow beyond 40 kB here, as on a disk that is full; see test_triton_repository for a real one."""
    path = tmp_path / "model.pt"
    path.write_bytes((exports / "torchscript.pt").read_bytes())
    write_entries(tmp_path, {"model.pt": read_entries(exports)["torchscript.pt"]})
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, "export", str(saved), "--format", "torchscript", "--out", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    assert ended.stderr.startswith("bmrl: error: ")
    assert f"{path}: expected to be written, got File too large" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert path.read_bytes() == before
    load_artifact(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["artifact.json", "model.pt"]


def test_names_what_is_wrong_with_the_arguments(model, images, exports, tmp_path):
    path = tmp_path / "model"
    with pytest.raises(RangeError, match=r"^format: expected 'torchscript' or .*'onnx-int8', got 'onnx-fp8'$"):
        export_model(model, path, "onnx-fp8")
    with pytest.raises(DTypeError, match=r"^calibration: expected images for onnx-int8, got None$"):
        export_model(model, path, "onnx-int8")
    with pytest.raises(BMRLError, match=r"^calibration: expected n channels height width|^calibration: expected "):
        export_model(model, path, "onnx-int8", calibration=images[0])
    with pytest.raises(BMRLError, match=r"^images: expected height = 32, got 16"):
        export_model(model, path, images=images[..., :16, :])
    with pytest.raises(DTypeError, match=r"^images: expected torch.uint8, got torch.float32$"):
        export_model(model, path, images=images.float())
    with pytest.raises(BMRLError, match=r"^images: expected at least one image, got shape \(0, 3, 32, 32\)$"):
        export_model(model, path, images=images[:0])
    with pytest.raises(BMRLError, match=r"^device: expected 'cpu' for onnx, got 'cuda'$"):
        export_model(model, path, "onnx", device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"^device: expected .* that is there, got 'cuda'"):
            export_model(model, tmp_path / "model.pt2", "aoti", device="cuda")
    with pytest.raises(RangeError, match=r"^engine: expected None for a file of format torchscript, got 'openvino'$"):
        load_artifact(exports / "torchscript.pt", engine="openvino")
    with pytest.raises(RangeError, match=r"^formats: expected .*, got 'gguf'$"):
        compare_formats(model, path, images=images, formats=["gguf"])
    assert not list(tmp_path.iterdir())


def test_names_the_extra_that_brings_onnx(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"^onnx: not installed; it comes with the extra \[export\] of bmrl"):
        export_model(model, tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())
