"""The export formats: all that is known of each, in one table.

A new format is a writer in :mod:`bmrl.export.writers` and an entry here; one that is loaded in a new way also is an
entry of ``LOADERS`` in :mod:`bmrl.export.standalone.artifact_runtime`. The command line, the repositories, the
comparison and the tests take everything else from these two tables. This module needs no PyTorch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.export.job import Job

__all__ = ["ENGINES", "FORMATS", "Format", "check_format"]

WRITERS = "bmrl.export.writers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A kind of file at a precision.

    Args:
        kind: how the file is loaded: a key of ``artifact_runtime.LOADERS``.
        precision: of the weights and of what is computed with them. What is written as ``"fp32"`` has to answer as the
            model does; of the others the differences are reported.
        suffix: of the file's name.
        needs_suffix: whether the file can't be loaded under a name without it.
        summary: one line for people.
        writer: the module of :mod:`bmrl.export.writers` and the function in it, as ``"module:function"``. It is called
            with a :class:`~bmrl.export.job.Job` and the path to write to.
        check: the function of the same module that raises, before the work, where something is missing that the
            format needs. It is called with the engine.
        devices: types of the devices that a file can be made for, the default first.
        engines: what can run the file, the default first; none where PyTorch does.
        calibrated: whether the writer needs images for calibration.

    Example:
        >>> FORMATS["onnx"].suffix, FORMATS["onnx"].engines
        ('.onnx', ('onnxruntime', 'openvino'))
    """

    kind: str
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    suffix: str
    needs_suffix: bool = False
    summary: str
    writer: str
    check: str | None = None
    devices: tuple[str, ...] = ("cpu",)
    engines: tuple[str, ...] = ()
    calibrated: bool = False

    def write(self, job: Job, path: Path) -> None:
        """Write the file, and nothing else."""
        self._of_writer(self.writer.partition(":")[2])(job, path)

    def check_requirements(self, engine: str | None = None) -> None:
        """Check that what the format needs is installed.

        Args:
            engine: what will run the file; None is the default.

        Raises:
            MissingExtraError: a package is not installed.
            ExportError: another program, such as a compiler, is missing.
        """
        if self.check is not None:
            self._of_writer(self.check)(engine)

    def _of_writer(self, function: str) -> Any:
        module = importlib.import_module(f"{WRITERS}.{self.writer.partition(':')[0]}")
        return getattr(module, function)


FORMATS: dict[str, Format] = {
    "torchscript": Format(
        kind="torchscript",
        suffix=".pt",
        summary="TorchScript, for PyTorch in Python or C++; can be moved to a GPU",
        writer="torchscript:write",
    ),
    "torchscript-bf16": Format(
        kind="torchscript",
        precision="bf16",
        suffix=".pt",
        summary="TorchScript in bfloat16",
        writer="torchscript:write",
    ),
    "pt2": Format(
        kind="pt2",
        suffix=".pt2",
        needs_suffix=True,
        summary="torch.export program, to be compiled or run by PyTorch",
        writer="pt2:write",
    ),
    "aoti": Format(
        kind="aoti",
        suffix=".pt2",
        needs_suffix=True,
        summary="AOTInductor: compiled for this processor, or for a CUDA device",
        writer="aoti:write",
        check="check_compiler",
        devices=("cpu", "cuda"),
    ),
    "aoti-bf16": Format(
        kind="aoti",
        precision="bf16",
        suffix=".pt2",
        needs_suffix=True,
        summary="AOTInductor in bfloat16",
        writer="aoti:write",
        check="check_compiler",
        devices=("cpu", "cuda"),
    ),
    "onnx": Format(
        kind="onnx",
        suffix=".onnx",
        summary="ONNX, for ONNX Runtime, OpenVINO, TensorRT",
        writer="onnx:write",
        check="check_packages",
        engines=("onnxruntime", "openvino"),
    ),
    "onnx-int8": Format(
        kind="onnx",
        precision="int8",
        suffix=".onnx",
        summary="ONNX with 8-bit weights and activations, calibrated on images",
        writer="onnx:write_int8",
        check="check_packages_int8",
        engines=("onnxruntime", "openvino"),
        calibrated=True,
    ),
}
"""By name, as ``bmrl export --format`` takes it."""

ENGINES = tuple(dict.fromkeys(engine for entry in FORMATS.values() for engine in entry.engines))
"""Programs other than PyTorch that run exported files."""


def check_format(name: str, format: Any) -> None:
    """Check for a name of :data:`FORMATS`.

    Args:
        name: of the argument, for the message.
        format: its value.

    Raises:
        RangeError: it is something else.
    """
    from bmrl._values import check_choice

    check_choice(name, format, tuple(FORMATS))
