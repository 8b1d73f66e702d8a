"""An exported file holds its description, and nothing is believed where it does not: damaged, absent, or another."""

from __future__ import annotations

import io
import json
import zipfile

import onnx
import pytest
import torch

from bmrl.errors import ArtifactError
from bmrl.export import Artifact
from bmrl.export.artifact import write_entries
from bmrl.export.standalone import artifact_runtime

WITHIN = {
    "format": "torchscript",
    "precision": "fp32",
    "device": "cpu",
    "image_size": 32,
    "generators": ["photographs"],
}
TEXT = json.dumps(WITHIN).encode()


def archive(content, name="model/extra/artifact.json", method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr("model/version", "3")
        if content is not None:
            made.writestr(name, content)
    return file.getvalue()


def encrypted():
    """An archive that says that its entries are encrypted, in their headers and in the directory."""
    data = bytearray(archive(TEXT))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(signature, place + 1)) >= 0:
            data[place + offset] |= 1
    return bytes(data)


def broken_deflate():
    data = archive(TEXT * 50, method=zipfile.ZIP_DEFLATED)
    place = data.index(b"artifact.json") + len(b"artifact.json")
    return data[:place] + bytes(byte ^ 0x55 for byte in data[place : place + 40]) + data[place + 40 :]


def unknown_method():
    data = bytearray(archive(TEXT))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = data.rindex(signature)
        data[place + offset] = 77
    return bytes(data)


def onnx_file(value=None, key="artifact.json"):
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch"])
    answer = onnx.helper.make_tensor_value_info("answer", onnx.TensorProto.UINT8, ["batch"])
    node = onnx.helper.make_node("Identity", ["images"], ["answer"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [images], [answer]))
    if value is not None:
        onnx.helper.set_model_props(model, {"author": "someone", key: value})
    return model.SerializeToString()


def torchscript(**extra):
    file = io.BytesIO()
    graph = torch.jit.trace(torch.nn.ReLU(), torch.zeros(1))
    torch.jit.save(graph, file, _extra_files=extra)
    return file.getvalue()


def program():
    file = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), file)
    return file.getvalue()


WHOLE = {
    "an archive": lambda: archive(TEXT),
    "a compressed archive": lambda: archive(TEXT, method=zipfile.ZIP_DEFLATED),
    "AOTInductor's": lambda: archive(json.dumps({"artifact.json": TEXT.decode()}), "data/cuda_metadata.json"),
    "TorchScript": lambda: torchscript(**{"artifact.json": TEXT}),
    "ONNX": lambda: onnx_file(TEXT.decode()),
}

DAMAGED = {
    "an archive without one": lambda: archive(None),
    "another name": lambda: archive(TEXT, "model/artifact.json"),
    "TorchScript without one": torchscript,
    "a program without one": program,
    "ONNX without properties": onnx_file,
    "ONNX with others": lambda: onnx_file(TEXT.decode(), "description.json"),
    "AOTInductor without one": lambda: archive('{"sources": "here"}', "data/cpu_metadata.json"),
    "AOTInductor with a list": lambda: archive("[]", "data/cpu_metadata.json"),
    "no JSON": lambda: archive(b"{"),
    "other bytes": lambda: archive(b"\xff\xfe{}"),
    "a list": lambda: archive(b"[1, 2]"),
    "a number": lambda: archive(b"7"),
    "null": lambda: archive(b"null"),
    "nothing": lambda: archive(b""),
    "nested too deep": lambda: archive(b"[" * 100_000),
    "a list in ONNX": lambda: onnx_file("[1, 2]"),
    "no JSON in ONNX": lambda: onnx_file("{"),
    "encrypted": encrypted,
    "a broken stream": broken_deflate,
    "an unknown compression": unknown_method,
    "a wrong checksum": lambda: archive(TEXT).replace(b"fp32", b"bf16"),
    "half an archive": lambda: archive(TEXT)[:60],
    "half of ONNX": lambda: onnx_file(TEXT.decode())[:-20],
    "neither": lambda: b"no model",
    "empty": lambda: b"",
}


def described(path, data, entry=None):
    path.write_bytes(data)
    write_entries(
        path.parent, {path.name: (entry or WITHIN) | {"sha256": artifact_runtime.sha256_of(path), "bytes": 1}}
    )
    return path


@pytest.mark.parametrize("kind", WHOLE)
def test_a_description_is_found_in_every_kind_of_file(tmp_path, kind):
    path = described(tmp_path / "model.pt", WHOLE[kind]())
    assert Artifact(path).description["generators"] == ["photographs"]
    assert artifact_runtime.embedded_description(path) == WITHIN


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_without_a_whole_description_is_refused(tmp_path, kind):
    """Though its hash is the one that ``artifact.json`` names."""
    path = described(tmp_path / "model.pt", DAMAGED[kind]())
    with pytest.raises(ArtifactError, match=r"model.pt: expected an exported file that holds its description") as error:
        Artifact(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="holds its description"):
        artifact_runtime.load(path)


@pytest.mark.parametrize("name", WITHIN)
def test_what_artifact_json_says_is_within_too(tmp_path, name):
    """An entry that is not in the file, such as other classes, is as bad as a different one."""
    less = {one: value for one, value in WITHIN.items() if one != name}
    path = described(tmp_path / "model.pt", archive(json.dumps(less)))
    with pytest.raises(
        ArtifactError, match=rf"artifact.json: expected the {name} that model.pt itself holds, got another"
    ):
        Artifact(path)
    described(tmp_path / "model.pt", archive(TEXT), entry=less)
    with pytest.raises(
        ArtifactError, match=rf"artifact.json: expected the {name} that model.pt itself holds, got another"
    ):
        Artifact(path)


@pytest.mark.parametrize("name", ["model/extra/artifact.json", "data/cpu_metadata.json"])
def test_a_description_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch, name):
    monkeypatch.setattr(artifact_runtime, "MOST_BYTES", 10_000)
    path = described(tmp_path / "model.pt", archive(b" " * 10_001 + TEXT, name, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 1000
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(
        ArtifactError, match=r"holds its description, got one with ValueError: \d+ bytes, of which 10000"
    ):
        Artifact(path)


def test_a_description_in_onnx_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact_runtime, "MOST_BYTES", 10_000)
    path = described(tmp_path / "model.onnx", onnx_file(" " * 10_001 + TEXT.decode()))
    with pytest.raises(
        ArtifactError, match=r"holds its description, got one with ValueError: \d+ bytes, of which 10000"
    ):
        Artifact(path)
