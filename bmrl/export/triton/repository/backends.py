"""Triton's backends that run exported files, and what each needs of a repository. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from bmrl.export.formats import FORMATS

__all__ = ["BACKENDS", "Backend"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One of Triton's backends.

    Args:
        kinds: of the files that it runs, see :class:`~bmrl.export.formats.Format`.
        format: what a model is exported as unless told otherwise: a name of :data:`~bmrl.export.FORMATS`.
        backend: ``backend`` of the configuration.
        platform: ``platform`` of the configuration.
        tensors: names of the input and the three outputs.
        threads: the parameter that sets the CPU threads per run.
        devices: types of the devices that it computes on.
        moves: whether it moves a file to its device, which other backends get a file for.
        batches: whether it runs several images at once.
        engines: whether it runs files with an engine that can be chosen.
    """

    kinds: tuple[str, ...]
    format: str
    backend: str
    platform: str = ""
    tensors: tuple[str, str, str, str] = ("images", "probabilities", "embedding", "score")
    threads: str
    devices: tuple[str, ...] = ("cpu",)
    moves: bool = False
    batches: bool = True
    engines: bool = False


_LIBTORCH = ("INPUT__0", "OUTPUT__0", "OUTPUT__1", "OUTPUT__2")

BACKENDS: dict[str, Backend] = {
    "python": Backend(
        kinds=tuple(dict.fromkeys(entry.kind for entry in FORMATS.values())),
        format="torchscript",
        backend="python",
        threads="num_threads",
        engines=True,
    ),
    "pytorch": Backend(
        kinds=("torchscript",),
        format="torchscript",
        backend="pytorch",
        platform="pytorch_libtorch",
        tensors=_LIBTORCH,
        threads="INTRA_OP_THREAD_COUNT",
        devices=("cpu", "cuda"),
        moves=True,
    ),
    "torch_aoti": Backend(
        kinds=("aoti",),
        format="aoti",
        backend="pytorch",
        platform="torch_aoti",
        tensors=_LIBTORCH,
        threads="INTRA_OP_THREAD_COUNT",
        devices=("cpu", "cuda"),
        batches=False,
    ),
    "onnxruntime": Backend(
        kinds=("onnx",),
        format="onnx",
        backend="onnxruntime",
        threads="intra_op_thread_count",
        devices=("cpu", "cuda"),
        moves=True,
    ),
}
"""By name, as ``bmrl export --backend`` takes it."""
