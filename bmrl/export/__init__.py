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
    from bmrl.export.async_client import AsyncTritonClient
    from bmrl.export.client import TritonClient
    from bmrl.export.every_format import export_all
    from bmrl.export.exported_program import export_aoti, export_pt2
    from bmrl.export.formats import FORMATS, export
    from bmrl.export.onnx import export_onnx
    from bmrl.export.served_model import ServedModel
    from bmrl.export.server import TritonServer, serve
    from bmrl.export.torchscript import export_torchscript, load_torchscript
    from bmrl.export.triton_repository import write_triton_repository

_HOMES = {
    "Artifact": "artifact",
    "FORMATS": "formats",
    "export": "formats",
    "export_all": "every_format",
    "export_aoti": "exported_program",
    "export_onnx": "onnx",
    "export_pt2": "exported_program",
    "load_artifact": "artifact",
    "AsyncTritonClient": "async_client",
    "ServedModel": "served_model",
    "TritonClient": "client",
    "TritonServer": "server",
    "export_torchscript": "torchscript",
    "load_torchscript": "torchscript",
    "serve": "server",
    "write_triton_repository": "triton_repository",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
