"""The inference graph as ONNX, in float32 and with 8-bit weights and activations."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bmrl._extras import require
from bmrl.export.standalone import artifact_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bmrl.export.job import Job

__all__ = ["check_packages", "check_packages_int8", "write", "write_int8"]

OPSET = 20
"""The first with GELU as an operator."""

QUANTIZED = ("Conv", "Gemm", "MatMul")
PASSED = ("Relu", "MaxPool")  # what may be between two convolutions
CALIBRATION_BATCH = 8
_QUIET = threading.RLock()


def write(job: Job, path: Path) -> None:
    """Write the graph in float32 (opset 20).

    The input is named ``images``, the outputs ``probabilities``, ``embedding`` and ``score``.

    Args:
        job: what to write.
        path: the file.
    """
    onnx = importlib.import_module("onnx")
    program = job.program()
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(artifact_runtime.OUTPUTS),
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert made is not None
    _save(onnx, made.model_proto, job, path)


def write_int8(job: Job, path: Path) -> None:
    """Write the graph with convolutions and matrix products in 8 bits.

    The weights have one scale per channel, the activations one each, from the calibration images. The views stay
    exact, and in float32 remain what cost most of the precision and little of the time: the first two convolutions
    after each view, matrix products that no convolution precedes (those of statistics and of resampling), the head, and
    the score.

    Args:
        job: what to write, with calibration images.
        path: the file.
    """
    onnx = importlib.import_module("onnx")
    quantization = importlib.import_module("onnxruntime.quantization")
    preparation = importlib.import_module("onnxruntime.quantization.shape_inference")
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
    encoder = _makers_of("embedding", makers)
    decision = (_makers_of("probabilities", makers) | _makers_of("score", makers)) - encoder
    after = [node.name for node in graph.node if node.op_type in QUANTIZED and node.name in decision]
    names = {node.name for node in convolutions}
    products = [node for node in graph.node if node.op_type in QUANTIZED and node.op_type != "Conv"]
    exact = [node.name for node in products if names.isdisjoint(_makers_of(node.output[0], makers))]
    return [*first, *second, *exact, *after]


def _makers_of(output: str, makers: dict[str, Any]) -> set[str]:
    """Return the names of all nodes that an output depends on."""
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found


class _Calibration:
    """Hands the images over in batches, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(CALIBRATION_BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}


def check_packages(engine: str | None) -> None:
    """Check that the packages which write ONNX files, and the engine, are installed.

    Raises:
        MissingExtraError: one is not.
    """
    require("onnx", "onnxscript", engine or "onnxruntime")


def check_packages_int8(engine: str | None) -> None:
    """Check that the packages which write and quantize ONNX files, and the engine, are installed.

    Raises:
        MissingExtraError: one is not.
    """
    require("onnxruntime")  # quantizes
    check_packages(engine)


def _save(onnx: Any, proto: Any, job: Job, path: Path) -> None:
    onnx.helper.set_model_props(proto, {artifact_runtime.DESCRIPTION: job.embedded})
    onnx.save(proto, path)


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
