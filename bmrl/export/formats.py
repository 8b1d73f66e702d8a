"""The export formats, and the one way in which a file of any of them comes about: written, verified, published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bmrl._checks import check_choice
from bmrl._files import scratch_beside
from bmrl.errors import BMRLError, DTypeError
from bmrl.export import _runtime
from bmrl.export.artifact import describe_model, publish, read_entries, write_entries
from bmrl.export.inference_graph import InferenceGraph
from bmrl.export.verification import Reference, reference, verify

if TYPE_CHECKING:
    import os
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
    """Images ``(n, 3, image_size, image_size)`` uint8 whose activations give the scales of int8."""


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
    model: BMRL,
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
    the file appears whole or not at all.

    Args:
        model: the model, in any mode, on any device.
        path: the file to write; its folder exists.
        format: a name of :data:`FORMATS`.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with, best a test split; None takes patterns.
        calibration: images of the same kind that give the scales of ``"onnx-int8"``, best some hundred of the
            training split; needed there and ignored elsewhere.
        device: for AOTInductor, what it compiles for: ``"cpu"`` or ``"cuda"``.
        engine: for ONNX, what runs the file when it is verified, see :func:`~bmrl.export.load_artifact`.

    Returns:
        ``path``.

    Raises:
        RangeError: ``format`` or ``device`` is unknown.
        MissingFileError: the folder of ``path`` does not exist.
        MissingExtraError: a package that the format needs is not installed.
        ShapeError, DTypeError: ``images`` or ``calibration`` do not fit, or are needed and missing.
        ModelFolderError: the ``artifact.json`` beside ``path`` is not ours.
        BMRLError: the file does not load, or does not answer as the model does.
    """
    path = Path(path)
    check_choice("format", format, FORMATS)
    check_choice("device", device, ("cpu", "cuda"))
    kind = FORMATS[format]
    if device == "cuda" and kind.kind != "aoti":
        raise BMRLError(f"device: expected 'cpu' for {format} (a CUDA device is chosen when it is loaded), got 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise BMRLError("device: expected a CUDA device on this machine, got none")
    if kind.precision == "int8" and calibration is None:
        raise DTypeError(f"calibration: expected images for {format}, got None")
    with scratch_beside(path) as temporary:
        read_entries(path.parent)  # refuses a foreign artifact.json before the work
        expected = images if isinstance(images, Reference) else reference(model, images)
        graph = InferenceGraph(model, dtype=_DTYPES[kind.precision], device=device)
        description = {"format": kind.kind, "precision": kind.precision, "device": device} | describe_model(model)
        try:
            _writer(kind.kind, format)(Job(graph, description, calibration), temporary)
        except (BMRLError, OSError):
            raise
        except Exception as error:  # of PyTorch's and ONNX's exporters, which raise many kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BMRLError(f"{format}: expected a model that can be written in this format, got {reason}") from error
        description |= {"sha256": _runtime.sha256_of(temporary), "bytes": temporary.stat().st_size}
        write_entries(temporary.parent, {path.name: description})
        exact = kind.precision == "fp32"
        description["verification"] = verify(temporary, expected, description["thresholds"], exact=exact, engine=engine)
        publish(temporary, path, description)
    return path


def _writer(kind: str, format: str) -> Callable[[Job, Path], None]:
    if kind == "torchscript":
        from bmrl.export import torchscript

        return torchscript.write_unfrozen if "unfrozen" in format else torchscript.write_frozen
    if kind == "onnx":
        from bmrl.export import onnx

        return onnx.write_int8 if format.endswith("int8") else onnx.write
    from bmrl.export import exported_program

    return exported_program.write_compiled if kind == "aoti" else exported_program.write
