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
from bmrl.export.triton_config import check_model
from bmrl.export.verification import probe_image

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.export._server_process import ServerProcess

__all__ = ["Probe", "wait_until_open"]

TOLERANCES = {"fp32": 1e-4, "bf16": 2e-2, "int8": 5e-2}
"""How far a server's answer may be from the one at export, which another kind of processor may have given."""


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
    """One patterned image, and what the repository's exported file made of it when it was verified.

    Args:
        folder: a repository written by :func:`bmrl.export.write_triton_repository`.

    Raises:
        ModelFolderError, MissingFileError: ``folder`` is no such repository, or one that is not whole.
    """

    def __init__(self, folder: Path) -> None:
        _, description = check_model(folder)
        self.image = probe_image(description["image_size"])
        answer = description["verification"]["probe"]
        self.expected = torch.tensor([[*answer["probabilities"], *answer["embedding"]]])
        self.tolerance = TOLERANCES[description["precision"]]

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
        difference = (torch.from_numpy(np.concatenate(answer, axis=1)) - self.expected).abs().max().item()
        if not difference <= self.tolerance:
            raise process.failure(f"numbers that differ by {difference:g} from those at export")
