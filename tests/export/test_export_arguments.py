"""What exporting functions take: everything is looked at before the work, and refused in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from bmrl.errors import (
    ArtifactError,
    BMRLError,
    DTypeError,
    ExportError,
    MissingExtraError,
    MissingFileError,
    ModelFolderError,
    RangeError,
    ShapeError,
)
from bmrl.export import FORMATS, compare_formats, export_model, load_artifact, write_triton_repository
from bmrl.models import save_model


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """Fail where the model is run before an argument was refused."""

    def work(*arguments):
        raise AssertionError("the reference was computed first")

    monkeypatch.setattr("bmrl.export.exporting.reference", work)
    monkeypatch.setattr("bmrl.export.comparison.reference", work)


IMAGES = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (None, DTypeError, "model: expected .* or its folder, got NoneType"),
        (3, DTypeError, "model: expected .* or its folder, got int"),
        (torch.nn.Linear(2, 2), DTypeError, "model: expected .* or its folder, got Linear"),
        ("no/such/folder", MissingFileError, "no/such/folder"),
    ],
)
def test_refuses_what_is_no_model(format, model, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        export_model(model, tmp_path / f"model{FORMATS[format].suffix}", format, calibration=IMAGES)
    with pytest.raises(kind, match=message):
        compare_formats(model, tmp_path / "all", images=IMAGES)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_without_a_model(tmp_path):
    (tmp_path / "config.json").write_text("{")
    for name, format in FORMATS.items():
        with pytest.raises((ModelFolderError, MissingFileError)):
            export_model(tmp_path, tmp_path / f"model{format.suffix}", name, calibration=IMAGES)
    with pytest.raises((ModelFolderError, MissingFileError)):
        write_triton_repository(tmp_path, tmp_path / "models")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"format": "gguf"}, RangeError, "format: expected 'torchscript' or "),
        ({"format": None}, RangeError, "format: expected 'torchscript' or "),
        ({"format": ["onnx"]}, RangeError, "format: expected 'torchscript' or "),
        ({"device": "gpu"}, RangeError, "device: expected 'cpu' for torchscript, got 'gpu'"),
        ({"device": None}, RangeError, "device: expected 'cpu' for torchscript, got None"),
        ({"device": "cuda"}, RangeError, "device: expected 'cpu' for torchscript"),
        ({"engine": "openvino"}, RangeError, "engine: expected None for torchscript, got 'openvino'"),
        ({"engine": "tensorrt", "format": "onnx"}, RangeError, "engine: expected None or .* for onnx, got 'tensorrt'"),
        ({"images": 3}, DTypeError, "images: expected a torch.Tensor, got int"),
        ({"images": IMAGES.float()}, DTypeError, "images: expected torch.uint8, got torch.float32"),
        ({"images": IMAGES[0]}, ShapeError, "images: expected shape "),
        ({"images": IMAGES[:0]}, ShapeError, "images: expected at least one image"),
        ({"images": IMAGES[..., :16]}, ShapeError, "images: expected width = 32, got 16"),
        ({"format": "onnx-int8"}, DTypeError, "calibration: expected images for onnx-int8, got None"),
        ({"format": "onnx-int8", "calibration": IMAGES.int()}, DTypeError, "calibration: expected torch.uint8, got"),
        ({"format": "onnx-int8", "calibration": IMAGES[:0]}, ShapeError, "calibration: expected at least one image"),
        ({"format": "onnx-int8", "calibration": "photos"}, DTypeError, "calibration: expected a torch.Tensor, got str"),
    ],
)
def test_refuses_other_options(model, tmp_path, options, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        export_model(model, tmp_path / "model", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "kind", "message"),
    [
        (
            "model.onnx",
            "torchscript",
            RangeError,
            r"path: expected a file with suffix \.pt for torchscript, got .*onnx",
        ),
        ("model.pt", "onnx", RangeError, r"path: expected a file with suffix \.onnx for onnx, got .*pt"),
        ("model.pt", "pt2", RangeError, r"path: expected a file with suffix \.pt2 for pt2, got .*pt"),
        ("model", "aoti", RangeError, r"path: expected a file with suffix \.pt2 for aoti, got .*model"),
        ("artifact.json", "torchscript", RangeError, "path: expected another file than artifact.json"),
        ("folder", "torchscript", ExportError, ".*folder: expected a file to write, got a folder"),
        ("fifo", "torchscript", ExportError, ".*fifo: expected a file to write, got a special file"),
        ("device", "torchscript", ExportError, ".*device: expected a file to write, got a special file"),
        ("none/model.pt", "torchscript", MissingFileError, ".*none/model.pt: expected an existing parent folder"),
        ("file/model.pt", "torchscript", MissingFileError, ".*file/model.pt: expected an existing parent folder"),
        ("a\0b", "torchscript", RangeError, "path: expected a path without a null character"),
        ("n" * 300, "torchscript", ExportError, ".*n: expected to be written, got File name too long"),
        ("n" * 250, "torchscript", ExportError, ".*n: expected to be written, got File name too long"),
    ],
)
def test_refuses_what_can_not_be_written_to(model, tmp_path, name, format, kind, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "device").symlink_to("/dev/null")
    subprocess.run(["mkfifo", tmp_path / "fifo"], check=True)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(kind, match=f"^{message}") as error:
        export_model(model, tmp_path / name, format)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("path", [None, 3, ["a"], b"model.pt"])
def test_refuses_what_is_no_path(model, path):
    with pytest.raises(DTypeError, match=r"^path: expected the path of a file, got "):
        export_model(model, path)
    with pytest.raises(DTypeError, match=r"^path: expected the path of an exported file, got "):
        load_artifact(path)
    with pytest.raises(DTypeError, match=r"^folder: expected a path, got "):
        compare_formats(model, path, images=IMAGES)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"formats": []}, RangeError, "formats: expected one or more different names, got none"),
        ({"formats": ["onnx", "onnx"]}, RangeError, "formats: expected one or more different names, got onnx, onnx"),
        ({"formats": "onnx"}, DTypeError, "formats: expected names of formats, got 'onnx'"),
        ({"formats": {"onnx"}}, DTypeError, "formats: expected names of formats, got {'onnx'}"),
        ({"formats": [None]}, RangeError, "formats: expected 'torchscript' or .*, got None"),
        ({"images": None}, DTypeError, "images: expected a torch.Tensor, got NoneType"),
        ({"calibration": IMAGES[:0]}, ShapeError, "calibration: expected at least one image"),
    ],
)
def test_the_table_of_formats_refuses_other_options(model, tmp_path, options, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        compare_formats(model, tmp_path / "all", **{"images": IMAGES} | options)
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_formats_refuses_another_folder(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"file: expected a folder, got a file$"):
        compare_formats(model, tmp_path / "file", images=IMAGES)
    (tmp_path / "artifact.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"artifact.json: expected a description written by bmrl, got KeyError"):
        compare_formats(model, tmp_path, images=IMAGES)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (export_model, {"format": "aoti", "device": "tpu"}, "device: expected 'cpu' or 'cuda' for aoti, got 'tpu'"),
        (load_artifact, {"num_threads": 0}, "num_threads: expected an integer >= 1, got 0"),
        (load_artifact, {"num_threads": 1.5}, "num_threads: expected an integer >= 1, got 1.5"),
        (load_artifact, {"probe": 1}, "probe: expected True or False, got 1"),
    ],
)
def test_each_function_refuses_other_options(model, tmp_path, function, options, message):
    arguments = (tmp_path / "m",) if function is load_artifact else (model, tmp_path / "model.pt2")
    with pytest.raises(BMRLError, match=f"^{message}"):
        function(*arguments, **options)


@pytest.mark.parametrize(
    ("package", "format", "engine", "extra"),
    [
        ("onnx", "onnx", None, "export"),
        ("onnxscript", "onnx", None, "export"),
        ("onnxruntime", "onnx", None, "export"),
        ("onnxruntime", "onnx-int8", None, "export"),
        ("openvino", "onnx", "openvino", "openvino"),
    ],
)
def test_a_missing_package_is_named_with_its_extra_before_the_work(
    model, monkeypatch, tmp_path, package, format, engine, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"^{package}: not installed; it comes with the extra \[{extra}\] of"):
        export_model(model, tmp_path / "model.onnx", format, engine=engine, calibration=IMAGES)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_is_named_before_the_work(model, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    torch._inductor.cpp_builder.cpp_compiler_search.cache_clear()
    try:
        with pytest.raises(
            ExportError, match=r"^aoti: expected a C\+\+ compiler, such as g\+\+, got none on this machine$"
        ):
            export_model(model, tmp_path / "model.pt2", "aoti")
    finally:
        torch._inductor.cpp_builder.cpp_compiler_search.cache_clear()
    assert list(tmp_path.iterdir()) == []


BASE = """
import importlib.abc, sys

class Extras(importlib.abc.MetaPathFinder):
    '''Stands for an install without extras.'''
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

EXTRAS = set(sys.argv[3].split())
sys.meta_path.insert(0, Extras())
from bmrl.export import export_model, load_artifact
from bmrl.export.probe import probe_image
path = export_model(sys.argv[1], sys.argv[2]).path
print(load_artifact(path).run(probe_image(32))[0].shape[1])
from bmrl.export import TritonClient
from bmrl.errors import MissingExtraError
for protocol in ("grpc", "http"):
    try:
        TritonClient("127.0.0.1:1", protocol)
    except MissingExtraError as error:
        print(error)
"""
EXTRAS = "onnx onnxscript onnxruntime openvino tritonclient grpc aiohttp google torchvision lightning torchmetrics "
EXTRAS += "open_clip matplotlib sklearn jinja2 yaml scipy pandas"


def test_torchscript_needs_the_base_install_alone(model, tmp_path):
    saved = save_model(model, tmp_path / "model")
    command = [sys.executable, "-c", BASE, str(saved), str(tmp_path / "model.pt"), EXTRAS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    needed = "tritonclient: not installed; it comes with the extra [serve] of bmrl (see README.md)"
    assert ended.stdout.splitlines() == ["4", needed, needed]
