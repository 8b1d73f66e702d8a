"""A trained model outside Python: the inference graph as a file, and served by a real Triton Inference Server.

Names load on first use, so that exporting needs PyTorch alone and a client needs no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

__all__ = [
    "FORMATS",
    "Artifact",
    "AsyncTritonClient",
    "ServedModel",
    "TritonClient",
    "TritonServer",
    "export",
    "export_all",
    "export_aoti",
    "export_onnx",
    "export_pt2",
    "export_torchscript",
    "load_artifact",
    "load_torchscript",
    "serve",
    "write_triton_repository",
]

if TYPE_CHECKING:
    from bmrl.export.artifact import Artifact, load_artifact
    from bmrl.export.comparison import export_all
    from bmrl.export.formats import FORMATS, export
    from bmrl.export.triton.client.asynchronous import AsyncTritonClient
    from bmrl.export.triton.client.blocking import TritonClient
    from bmrl.export.triton.contract import ServedModel
    from bmrl.export.triton.repository.write import write_triton_repository
    from bmrl.export.triton.server.server import TritonServer, serve
    from bmrl.export.writers.exported_program import export_aoti, export_pt2
    from bmrl.export.writers.onnx import export_onnx
    from bmrl.export.writers.torchscript import export_torchscript, load_torchscript

_HOMES = {
    "Artifact": "artifact",
    "FORMATS": "formats",
    "export": "formats",
    "export_all": "comparison",
    "export_aoti": "writers.exported_program",
    "export_onnx": "writers.onnx",
    "export_pt2": "writers.exported_program",
    "load_artifact": "artifact",
    "AsyncTritonClient": "triton.client.asynchronous",
    "ServedModel": "triton.contract",
    "TritonClient": "triton.client.blocking",
    "TritonServer": "triton.server.server",
    "export_torchscript": "writers.torchscript",
    "load_torchscript": "writers.torchscript",
    "serve": "triton.server.server",
    "write_triton_repository": "triton.repository.write",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
