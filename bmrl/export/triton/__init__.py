"""An exported file as a service: a model repository, a Triton Inference Server that serves it, and its clients.

Names load on first use, so that a client needs no server and a repository needs no client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

__all__ = [
    "AsyncTritonClient",
    "ServedModel",
    "TritonClient",
    "TritonServer",
    "serve",
    "write_triton_repository",
]

if TYPE_CHECKING:
    from bmrl.export.triton.client.asynchronous import AsyncTritonClient
    from bmrl.export.triton.client.blocking import TritonClient
    from bmrl.export.triton.contract import ServedModel
    from bmrl.export.triton.repository.write import write_triton_repository
    from bmrl.export.triton.server.server import TritonServer, serve

_HOMES = {
    "AsyncTritonClient": "client.asynchronous",
    "ServedModel": "contract",
    "TritonClient": "client.blocking",
    "TritonServer": "server.server",
    "serve": "server.server",
    "write_triton_repository": "repository.write",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
