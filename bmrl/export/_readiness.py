"""When a server is ready: it has answered a real inference as the repository's own graph does."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from bmrl.errors import ServerError
from bmrl.export._ports import LOOPBACK
from bmrl.export.client import TritonClient
from bmrl.export.served_model import MODEL_NAME, ServedModel
from bmrl.export.torchscript import load_torchscript
from bmrl.export.triton_repository import read_triton_config

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.export._server_process import ServerProcess

__all__ = ["Probe", "wait_until_open"]

TOLERANCE = 1e-4


def wait_until_open(process: ServerProcess, ports: dict[str, int], deadline: float) -> None:
    """Wait for the server's ports, which open when its models are loaded.

    Raises:
        ServerError: the process has ended, or ``deadline`` (of ``time.monotonic``) has passed.
    """
    for port in ports.values():
        while True:
            process.check_alive()
            if time.monotonic() > deadline:
                raise process.failure("none in time")
            try:
                socket.create_connection((LOOPBACK, port), timeout=1.0).close()
                break
            except OSError:
                time.sleep(0.05)


class Probe:
    """One patterned image, and what the repository's TorchScript file makes of it in this process.

    The pattern matters: a server that corrupts its input still answers right for a black image.

    Args:
        folder: a repository written by :func:`bmrl.export.write_triton_repository`.

    Raises:
        ModelFolderError, MissingFileError, ServerError: ``folder`` is no such repository.
    """

    def __init__(self, folder: Path) -> None:
        size = ServedModel.from_config(read_triton_config(folder)).image_size
        self.image = torch.arange(3 * size * size).remainder(251).to(torch.uint8).reshape(1, 3, size, size)
        graph = load_torchscript(folder / MODEL_NAME / "1" / "model.pt")
        with torch.inference_mode():
            self.expected = torch.cat(graph(self.image), dim=1)

    def check(self, process: ServerProcess, url: str, deadline: float) -> None:
        """Ask the server at the gRPC ``url`` and compare probabilities and embedding.

        Raises:
            ServerError: it does not answer by ``deadline``, or answers with an error or other numbers.
        """
        try:
            with TritonClient(url, timeout=max(deadline - time.monotonic(), 1.0)) as client:
                answer = client.infer(self.image)
        except ServerError as error:
            raise process.failure(str(error)) from error
        total = answer.probabilities.sum().item()
        difference = (torch.from_numpy(np.concatenate(answer, axis=1)) - self.expected).abs().max().item()
        if not (abs(total - 1) <= TOLERANCE and difference <= TOLERANCE):
            raise process.failure(
                f"probabilities with a sum of {total:g} and numbers that differ by {difference:g} from the "
                f"repository's own graph"
            )
