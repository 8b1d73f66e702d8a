"""When a server is ready: it has answered a real inference as the repository's own graph does."""

from __future__ import annotations

import io
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from bmrl.errors import ServerError, ServerTimeoutError, ServerUnavailableError
from bmrl.export.probe import PROBE_TOLERANCES, probe_difference, probe_image
from bmrl.export.triton.client.blocking import TritonClient
from bmrl.export.triton.contract import ENSEMBLE_NAME, MODEL_NAME, ServedModel, import_tritonclient
from bmrl.export.triton.repository.checks import check_model
from bmrl.export.triton.repository.config import read_triton_config
from bmrl.export.triton.repository.ensemble import decoding_limits, has_ensemble

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from bmrl.export.triton.server.process import ServerProcess

__all__ = ["NoAnswerError", "Probe", "count_answers", "max_request_bytes", "open_connection", "wait_until_open"]

POLL = 0.05
SAY_EVERY = 5.0  # seconds
BEYOND_TENSORS = 8 * 2**20  # bytes of a request, as the gateway allows
LARGEST_MESSAGE = 2**31 - 1  # bytes, of gRPC

logger = logging.getLogger("bmrl.export.triton.server.server")


class NoAnswerError(ServerError):
    """A probe was not answered in time, or not taken: the server may be busy, and has not failed.

    ``model`` is the one that did not answer.
    """

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


def wait_until_open(process: ServerProcess, host: str, ports: dict[str, int], deadline: float) -> None:
    """Wait for the server's ports, which open when its models are loaded.

    Raises:
        ServerError: the process has ended, or ``deadline`` (of ``time.monotonic``) has passed.
    """
    start = said = time.monotonic()
    for port in ports.values():
        while True:
            process.check_alive()
            if (now := time.monotonic()) > deadline:
                raise process.failure(
                    f"none in time ({now - start:.0f} s; a longer startup timeout helps where it is only slow)"
                )
            if now - said > SAY_EVERY:
                said = now
                logger.warning(
                    "tritonserver: waiting until %s %s loaded (%.0f s so far, %.0f s left)",
                    ", ".join(process.models),
                    "is" if len(process.models) == 1 else "are",
                    now - start,
                    deadline - now,
                )
            try:
                socket.create_connection((host, port), timeout=1.0).close()
                break
            except OSError:
                time.sleep(POLL)
    if said > start:
        logger.warning("tritonserver: waiting for its first answer (%.0f s left)", deadline - time.monotonic())


def max_request_bytes(folder: Path) -> int:
    """Return the size of the largest request that the models of a checked repository can answer."""
    served = ServedModel.from_config(read_triton_config(folder))
    largest = max(served.max_batch_size, 1) * 3 * served.image_size**2
    if has_ensemble(folder, served):
        largest = max(largest, decoding_limits(folder)["max_bytes"])
    return min(largest + BEYOND_TENSORS, LARGEST_MESSAGE)


def open_connection(url: str) -> Any:
    """Return Triton's own gRPC client of a server on this machine, to which no proxy may lead."""
    return import_tritonclient("grpc").InferenceServerClient(url, channel_args=[("grpc.enable_http_proxy", 0)])


def count_answers(url: str, timeout: float, model: str = MODEL_NAME) -> int:
    """Return how many requests a model of the server at the gRPC ``url`` has answered without an error.

    Raises:
        ServerError: the server does not say.
    """
    failure = import_tritonclient("utils").InferenceServerException
    with open_connection(url) as connection:
        try:
            statistics = connection.get_inference_statistics(model, client_timeout=timeout)
        except failure as error:
            raise ServerError(f"{url}: expected statistics, got {' '.join(str(error).split())}") from error
    return sum(version.inference_stats.success.count for version in statistics.model_stats)


class Probe:
    """One patterned image, and the answer of the repository's exported file when it was verified.

    Where the repository has an ensemble, its answer to the image as a PNG file is compared too.

    Args:
        folder: a repository written by :func:`bmrl.export.write_triton_repository`.

    Raises:
        RepositoryError, MissingFileError: ``folder`` is not such a repository, or one that is not whole.
    """

    def __init__(self, folder: Path) -> None:
        _, description = check_model(folder)
        served = ServedModel.from_config(read_triton_config(folder))
        self.image = probe_image(description["image_size"])
        answer = description["verification"]["probe"]
        self.expected = torch.tensor([*answer["probabilities"], *answer["embedding"], *answer["score"]])
        self.tolerance = PROBE_TOLERANCES[description["precision"]]
        self.encoded = [_encode(self.image[0])] if has_ensemble(folder, served) else []

    def check(self, url: str, timeout: float) -> None:
        """Ask the server at the gRPC ``url`` and compare all that it answers, and the ensemble's attribution.

        Raises:
            NoAnswerError: it does not answer within ``timeout`` seconds, or says that it is unavailable.
            ServerError: it answers with an error or with other numbers.
        """
        asked = MODEL_NAME
        try:
            with TritonClient(url, timeout=timeout, retries=0) as client:
                answer = client.infer(self.image)
                asked = ENSEMBLE_NAME
                attributions = client.attribute(self.encoded)
        except (ServerTimeoutError, ServerUnavailableError) as error:  # the latter also from a full queue
            raise NoAnswerError(str(error), asked) from error
        rows = [np.concatenate(answer, axis=1)[0]]
        number = answer.probabilities.shape[1]
        rows += [np.array([*found.probabilities.values(), *rows[0][number:-1], found.score]) for found in attributions]
        difference = max(probe_difference(torch.from_numpy(row).float(), self.expected) for row in rows)
        if not difference <= self.tolerance:
            raise ServerError(f"{url}: expected the answer given at export, got numbers that differ by {difference:g}")

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


def _encode(image: Tensor) -> bytes:
    """Return an image (3, height, width) as a PNG file, from which it comes back unchanged."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()
