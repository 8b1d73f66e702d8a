"""When a server is ready: it has answered a real inference as the repository's own graph does."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from bmrl.errors import ServerError
from bmrl.export.client import TritonClient
from bmrl.export.served_model import MODEL_NAME, ServedModel, import_tritonclient
from bmrl.export.torchscript import load_torchscript
from bmrl.export.triton_repository import read_triton_config

if TYPE_CHECKING:
    from pathlib import Path

    from bmrl.export._server_process import ServerProcess

__all__ = ["NoAnswerError", "Probe", "count_answers", "wait_until_open"]

TOLERANCE = 1e-4
NO_ANSWER = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE")  # the latter also from a full queue
POLL = 0.05


class NoAnswerError(ServerError):
    """A probe was not answered in time, or not taken: the server may be busy, and has not failed."""


def wait_until_open(process: ServerProcess, host: str, ports: dict[str, int], deadline: float) -> None:
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
                socket.create_connection((host, port), timeout=1.0).close()
                break
            except OSError:
                time.sleep(POLL)


def count_answers(url: str, timeout: float) -> int:
    """Return how many requests the model behind the gRPC ``url`` has answered without an error.

    Raises:
        ServerError: the server does not say.
    """
    failure = import_tritonclient("utils").InferenceServerException
    with import_tritonclient("grpc").InferenceServerClient(url) as connection:
        try:
            statistics = connection.get_inference_statistics(MODEL_NAME, client_timeout=timeout)
        except failure as error:
            raise ServerError(f"{url}: expected statistics, got {' '.join(str(error).split())}") from error
    return sum(model.inference_stats.success.count for model in statistics.model_stats)


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

    def check(self, url: str, timeout: float) -> None:
        """Ask the server at the gRPC ``url`` and compare probabilities and embedding.

        Raises:
            NoAnswerError: it does not answer within ``timeout`` seconds, or says that it is unavailable.
            ServerError: it answers with an error or with other numbers.
        """
        try:
            with TritonClient(url, timeout=timeout) as client:
                answer = client.infer(self.image)
        except ServerError as error:
            if str(getattr(error.__cause__, "status", str)()) in NO_ANSWER:
                raise NoAnswerError(str(error)) from error
            raise
        total = answer.probabilities.sum().item()
        difference = (torch.from_numpy(np.concatenate(answer, axis=1)) - self.expected).abs().max().item()
        if not (abs(total - 1) <= TOLERANCE and difference <= TOLERANCE):
            raise ServerError(
                f"{url}: expected the answer of the repository's own graph, got probabilities with a sum of {total:g} "
                f"and numbers that differ by {difference:g}"
            )

    def wait(self, process: ServerProcess, url: str, deadline: float) -> None:
        """Check until the server answers.

        Raises:
            ServerError: the process has ended, the answer is wrong, or there is none until ``deadline``.
        """
        while True:
            process.check_alive()
            try:
                return self.check(url, max(deadline - time.monotonic(), 1.0))
            except ServerError as error:
                if not isinstance(error, NoAnswerError) or time.monotonic() > deadline:
                    raise process.failure(str(error)) from error
                time.sleep(POLL)
