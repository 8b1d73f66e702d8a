"""A trained model outside Python: the inference graph as a file, and served by a real Triton Inference Server.

Names load on first use, so that exporting needs only PyTorch and a client needs no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

__all__ = [
    "FORMATS",
    "Artifact",
    "AsyncTritonClient",
    "ExportResult",
    "FormatComparison",
    "ServedModel",
    "TritonClient",
    "TritonServer",
    "compare_formats",
    "export_model",
    "load_artifact",
    "serve",
    "write_triton_repository",
]

if TYPE_CHECKING:
    from bmrl.export.artifact import Artifact, load_artifact
    from bmrl.export.comparison import FormatComparison, compare_formats
    from bmrl.export.exporting import ExportResult, export_model
    from bmrl.export.formats import FORMATS
    from bmrl.export.triton.client.asynchronous import AsyncTritonClient
    from bmrl.export.triton.client.blocking import TritonClient
    from bmrl.export.triton.contract import ServedModel
    from bmrl.export.triton.repository.write import write_triton_repository
    from bmrl.export.triton.server.server import TritonServer, serve

_HOMES = {
    "Artifact": "artifact",
    "AsyncTritonClient": "triton.client.asynchronous",
    "ExportResult": "exporting",
    "FORMATS": "formats",
    "FormatComparison": "comparison",
    "ServedModel": "triton.contract",
    "TritonClient": "triton.client.blocking",
    "TritonServer": "triton.server.server",
    "compare_formats": "comparison",
    "export_model": "exporting",
    "load_artifact": "artifact",
    "serve": "triton.server.server",
    "write_triton_repository": "triton.repository.write",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
