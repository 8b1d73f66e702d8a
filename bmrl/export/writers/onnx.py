"""The inference graph as ONNX, in float32 and with 8-bit weights and activations."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from bmrl._checks import check_choice
from bmrl.errors import MissingExtraError
from bmrl.export.formats import export
from bmrl.export.standalone import artifact_runtime
from bmrl.export.writers.exported_program import exported

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from torch import Tensor

    from bmrl.export.formats import Job
    from bmrl.models import BMRL

__all__ = ["export_onnx"]

OPSET = 20
"""The first with GELU as an operator."""

QUANTIZED = ("Conv", "Gemm", "MatMul")
PASSED = ("Relu", "MaxPool")  # what stands between two convolutions
CALIBRATION_BATCH = 8
_QUIET = threading.RLock()


def export_onnx(
    model: BMRL | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    precision: Literal["fp32", "int8"] = "fp32",
    images: Tensor | None = None,
    calibration: Tensor | None = None,
) -> Path:
    """Write the inference graph of ``model`` as ONNX (opset 20), verified, and return its path.

    The input is named ``images``, the outputs ``probabilities`` and ``embedding``. See
    :func:`~bmrl.export.export` for what every export promises, and for the errors.

    Args:
        model: the model, in any mode, on any device; or its folder.
        path: the file to write; its folder exists.
        precision: ``"fp32"``, or ``"int8"``: convolutions and matrix products in 8 bits, with scales a channel for
            the weights and static ones for the activations. The views stay exact, and in float32 remain what cost
            most of the precision and little of the time: the first two convolutions after each view, and the head.
        images: ``(n, 3, image_size, image_size)`` uint8 to verify with; None takes patterns.
        calibration: images of the same kind for the scales of ``"int8"``, some hundred of the training split.
    """
    check_choice("precision", precision, ("fp32", "int8"))
    name = "onnx" if precision == "fp32" else "onnx-int8"
    return export(model, path, name, images=images, calibration=calibration)


def write(job: Job, path: Path) -> None:
    """Write the float32 graph."""
    onnx = _import("onnx")
    program = exported(job)
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities", "embedding"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert made is not None
    _save(onnx, made.model_proto, job, path)


def write_int8(job: Job, path: Path) -> None:
    """Write the quantized graph."""
    onnx = _import("onnx")
    quantization = _import("onnxruntime.quantization")
    preparation = _import("onnxruntime.quantization.shape_inference")
    assert job.calibration is not None
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet():
        plain, prepared = Path(folder, "plain.onnx"), Path(folder, "prepared.onnx")
        write(job, plain)
        preparation.quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # folds what can be folded
        quantization.quantize_static(
            prepared,
            path,
            _Calibration(job.calibration),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=_sensitive(onnx.load(prepared).graph),
            per_channel=True,
        )
    _save(onnx, onnx.load(path), job, path)


def _sensitive(graph: Any) -> list[str]:
    """Return the names of the nodes that stay in float32."""
    makers = {name: node for node in graph.node for name in node.output}

    def before(node: Any, passed: tuple[str, ...] | None = None) -> Any:
        """Return the node before that is quantized; None if others than ``passed`` come first."""
        while (node := makers.get(node.input[0])) is not None and node.op_type not in QUANTIZED:
            if passed is not None and node.op_type not in passed:
                return None
        return node

    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    first = [node.name for node in convolutions if before(node, PASSED) is None]
    second = [node.name for node in convolutions if getattr(before(node, PASSED), "name", None) in first]
    head = before(makers["probabilities"])
    return [*first, *second, head.name]


class _Calibration:
    """Hands the images over in batches, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(CALIBRATION_BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}


def check_packages(engine: str | None, *, quantized: bool) -> None:
    """Raise MissingExtraError unless the packages that write, quantize and run ONNX files are installed."""
    for module in ("onnx", "onnxscript"):
        _import(module)
    if quantized or engine != "openvino":
        _import("onnxruntime")
    if engine == "openvino":
        _import("openvino", "openvino")


def _save(onnx: Any, proto: Any, job: Job, path: Path) -> None:
    onnx.helper.set_model_props(proto, {artifact_runtime.DESCRIPTION: json.dumps(job.description)})
    onnx.save(proto, path)


def _import(module: str, extra: str = "export") -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module.split(".")[0], extra) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's and the quantizer's progress to themselves; errors are raised, not printed.

    So are the warnings and prints of other threads meanwhile, and exports take turns.
    """
    with _QUIET:
        level = logging.root.manager.disable
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            try:
                yield
            finally:
                logging.disable(level)
