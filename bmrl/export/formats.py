"""The export formats, and the one way in which a file of any of them comes about: written, verified, published."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bmrl._checks import check_choice
from bmrl._files import scratch
from bmrl._text import shown
from bmrl.errors import BMRLError, DTypeError, ExportError, MissingFileError, RangeError
from bmrl.export._models import as_model
from bmrl.export.artifact import ENGINES, describe_model, publish, read_entries, write_entries
from bmrl.export.graph import InferenceGraph
from bmrl.export.standalone import artifact_runtime
from bmrl.export.verification import Reference, check_images, reference, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from bmrl.models import BMRL

__all__ = ["FORMATS", "Format", "export"]


class Job(NamedTuple):
    """What a format's writer is given."""

    graph: InferenceGraph
    """In the format's dtype, on its device."""
    description: dict[str, Any]
    """What the file says about itself; a writer may add to it."""
    calibration: Tensor | None
    """Images ``(n, 3, image_size, image_size)`` uint8, on the CPU, whose activations give the scales of int8."""


class Format(NamedTuple):
    """A kind of file at a precision."""

    kind: str
    """``"torchscript"``, ``"pt2"``, ``"aoti"`` or ``"onnx"``: how it is loaded."""
    precision: str
    """``"fp32"``, ``"bf16"`` or ``"int8"``."""
    suffix: str
    summary: str


FORMATS: dict[str, Format] = {
    "torchscript": Format("torchscript", "fp32", ".pt", "TorchScript, frozen: parameters are constants"),
    "torchscript-bf16": Format("torchscript", "bf16", ".pt", "the same in bfloat16"),
    "torchscript-unfrozen": Format("torchscript", "fp32", ".pt", "TorchScript with its parameters, movable to a GPU"),
    "torchscript-unfrozen-bf16": Format("torchscript", "bf16", ".pt", "the same in bfloat16"),
    "pt2": Format("pt2", "fp32", ".pt2", "torch.export program, to be compiled or run by PyTorch"),
    "pt2-bf16": Format("pt2", "bf16", ".pt2", "the same in bfloat16"),
    "aoti": Format("aoti", "fp32", ".pt2", "AOTInductor: compiled for this processor, or a CUDA device"),
    "aoti-bf16": Format("aoti", "bf16", ".pt2", "the same in bfloat16"),
    "onnx": Format("onnx", "fp32", ".onnx", "ONNX, for ONNX Runtime, OpenVINO, TensorRT"),
    "onnx-int8": Format("onnx", "int8", ".onnx", "ONNX with 8-bit weights and activations, calibrated on images"),
}
"""By name, as ``bmrl export --format`` takes it."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}


def export(
    model: BMRL | str | os.PathLike[str],
    path: str | os.PathLike[str],
    format: str = "torchscript",
    *,
    images: Tensor | Reference | None = None,
    calibration: Tensor | None = None,
    device: str = "cpu",
    engine: str | None = None,
) -> Path:
    """Write the inference graph of ``model`` to a file, and ``artifact.json`` beside it, once the file is verified.

    Every format takes uint8 images ``(batch, 3, image_size, image_size)`` with a batch of 1 to 64, and returns
    probabilities ``(batch, num_generators)`` and embedding ``(batch, embed_dim)``, both float32. A fresh process that
    can't import bmrl has loaded the file and answered batches of 1, 3 and 64; a float32 file that differs from the
    model by more than 1e-4, or in a decision, and any file that answers NaN, is not written. ``model`` is not touched;
    the file appears whole or not at all. What an export that was killed has left beside ``path`` is removed by the
    next one.

    Args:
        model: the model, in any mode, on any device; or its folder.
        path: the file to write; its folder exists. Its suffix is the format's, or none; for ``"pt2"`` and ``"aoti"``
            it is ``.pt2``.
        format: a name of :data:`FORMATS`.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with, best a test split; None takes patterns.
        calibration: images of the same kind that give the scales of ``"onnx-int8"``, best some hundred of the
            training split; needed there and ignored elsewhere.
        device: for AOTInductor, what it compiles for: ``"cpu"`` or ``"cuda"``.
        engine: for ONNX, what runs the file when it is verified, see :func:`~bmrl.export.load_artifact`.

    Returns:
        ``path``.

    Raises:
        RangeError: ``format``, ``device`` or ``engine`` is unknown or does not fit, or ``path`` has the suffix of
            another format.
        DTypeError: ``model`` or ``path`` is something else.
        MissingFileError: the folder of ``path``, or of the model, does not exist.
        ModelFolderError: the folder holds no usable model.
        MissingExtraError: a package that the format needs is not installed.
        ShapeError, DTypeError: ``images`` or ``calibration`` do not fit, or are needed and missing.
        ArtifactError: the ``artifact.json`` beside ``path`` is not ours.
        ExportError: ``path`` can't be written, there is no C++ compiler for AOTInductor, or the exporter of PyTorch or
            ONNX does not take the model.
        VerificationError: the file does not load, or does not answer as the model does.
    """
    check_format("format", format)
    kind = FORMATS[format]
    path = _checked_path(path, format)
    check_choice("device", device, ("cpu", "cuda"))
    if device == "cuda" and kind.kind != "aoti":
        raise RangeError(f"device: expected 'cpu' for {format} (a CUDA device is chosen when it is loaded), got 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise RangeError("device: expected a CUDA device on this machine, got none")
    if engine is not None and (kind.kind != "onnx" or engine not in ENGINES):
        raise RangeError(f"engine: expected None, or onnxruntime or openvino for an ONNX format, got {engine!r}")
    if kind.precision == "int8" and calibration is None:
        raise DTypeError(f"calibration: expected images for {format}, got None")
    model = as_model(model)
    if kind.precision == "int8" and calibration is not None:
        calibration = check_images("calibration", calibration, model.config.image_size)
    if images is not None and not isinstance(images, Reference):
        images = check_images("images", images, model.config.image_size)
    check_requirements(format, engine)
    try:
        with scratch(path) as folder:
            read_entries(path.parent)  # refuses a foreign artifact.json before the work
            expected = images if isinstance(images, Reference) else reference(model, images)
            graph = InferenceGraph(model, dtype=_DTYPES[kind.precision], device=device)
            description = {"format": kind.kind, "precision": kind.precision, "device": device} | describe_model(model)
            if kind.kind == "aoti":
                description["processor_features"] = artifact_runtime.processor_features()
            _write_and_verify(folder / path.name, Job(graph, description, calibration), format, expected, engine)
            publish(folder / path.name, path, description)
    except BMRLError:
        raise
    except OSError as error:
        raise ExportError(f"{path}: expected to be written, got {shown(error.strerror or error)}") from error
    return path


def check_format(name: str, format: Any) -> None:
    """Raise RangeError unless ``format`` is a name of :data:`FORMATS`."""
    check_choice(name, format, tuple(FORMATS))


def check_requirements(format: str, engine: str | None = None) -> None:
    """Check that what a format needs is here, before the work.

    Raises:
        MissingExtraError: a package is not.
        ExportError: AOTInductor finds no C++ compiler.
    """
    kind = FORMATS[format].kind
    if kind == "onnx":
        from bmrl.export.writers.onnx import check_packages

        check_packages(engine, quantized=FORMATS[format].precision == "int8")
    elif kind == "aoti":
        from bmrl.export.writers.exported_program import check_compiler

        check_compiler()


def _checked_path(path: Any, format: str) -> Path:
    """Return the path of a file that may be written, or replaced."""
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"path: expected the path of a file, got {type(path).__name__}")
    if "\0" in str(path):
        raise RangeError(f"path: expected a path without a null character, got {str(path)!r}")
    path = Path(path)
    kind = FORMATS[format]
    allowed = (kind.suffix,) if kind.suffix == ".pt2" else (kind.suffix, "")
    suffixes = {entry.suffix for entry in FORMATS.values()}
    if path.suffix not in allowed and (path.suffix in suffixes or kind.suffix == ".pt2"):
        raise RangeError(f"path: expected a file with suffix {kind.suffix} for {format}, got {path}")
    if path.name == artifact_runtime.DESCRIPTION:
        raise RangeError(
            f"path: expected another file than {artifact_runtime.DESCRIPTION}, which describes it, got {path}"
        )
    if not path.absolute().parent.is_dir():
        raise MissingFileError(f"{path}: expected an existing parent folder, got none at {path.absolute().parent}")
    if os.path.exists(path) and not path.is_file():
        raise ExportError(f"{path}: expected a file to write, got {'a folder' if path.is_dir() else 'a special file'}")
    return path


def _write_and_verify(path: Path, job: Job, format: str, expected: Reference, engine: str | None) -> None:
    """Write a file and complete its description."""
    kind, description = FORMATS[format], job.description
    try:
        _writer(kind.kind, format)(job, path)
    except (BMRLError, OSError):
        raise
    except Exception as error:  # of PyTorch's and ONNX's exporters, which raise many kinds
        reason = shown((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ExportError(f"{format}: expected a model that can be written in this format, got {reason}") from error
    description |= {"sha256": artifact_runtime.sha256_of(path), "bytes": path.stat().st_size}
    write_entries(path.parent, {path.name: description})
    exact = kind.precision == "fp32"
    description["verification"] = verify(path, expected, description["thresholds"], exact=exact, engine=engine)


def _writer(kind: str, format: str) -> Callable[[Job, Path], None]:
    if kind == "torchscript":
        from bmrl.export.writers import torchscript

        return torchscript.write_unfrozen if "unfrozen" in format else torchscript.write_frozen
    if kind == "onnx":
        from bmrl.export.writers import onnx

        return onnx.write_int8 if format.endswith("int8") else onnx.write
    from bmrl.export.writers import exported_program

    return exported_program.write_compiled if kind == "aoti" else exported_program.write
