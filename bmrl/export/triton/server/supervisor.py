"""Watches a server and restores what dies; :meth:`bmrl.export.TritonServer.supervise` states the rules."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Protocol

from bmrl._checks import check_integer, check_positive
from bmrl.errors import BMRLError, RangeError, ServerError
from bmrl.export.triton.contract import ENSEMBLE_NAME, MODEL_NAME
from bmrl.export.triton.server.readiness import NoAnswerError, count_answers

__all__ = ["Supervised", "Supervisor", "check_duration"]

POLL = 0.2
COUNTING = 5.0  # seconds that a server gets for its statistics, which need no model
HEALTHY = 60.0
LONGEST_WAIT = 30.0
LONGEST_DURATION = 366 * 24 * 3600

logger = logging.getLogger("bmrl.export.triton.server.server")


def check_duration(name: str, seconds: float) -> None:
    """Check for a number of seconds above zero that a clock can wait for.

    Raises:
        DTypeError: it is not a number.
        RangeError: it is zero, negative, NaN or more than a year.
    """
    check_positive(name, seconds)
    if seconds > LONGEST_DURATION:
        raise RangeError(f"{name}: expected at most {LONGEST_DURATION} seconds, got {seconds}")


class Supervised(Protocol):
    """What a supervisor needs of a server; :class:`bmrl.export.TritonServer` says more about each."""

    @property
    def model_control(self) -> str:
        """Whether the models can be reloaded: ``"none"`` or ``"explicit"``."""

    @property
    def stopping(self) -> bool:
        """Whether the server has been told to stop."""

    @property
    def grpc_url(self) -> str:
        """``"address:port"`` for gRPC."""

    def check_alive(self) -> None:
        """Raise BMRLError if the server does not run any more."""

    def check_answer(self, timeout: float) -> None:
        """Raise BMRLError unless the server answers right within ``timeout`` seconds."""

    def reload(self) -> None:
        """Unload and load all models."""

    def restart(self) -> None:
        """Kill the server and start it again."""


class Supervisor:
    """Supervises ``server``, which runs; the arguments are those of :meth:`bmrl.export.TritonServer.supervise`."""

    def __init__(self, server: Supervised, *, probe_interval: float, patience: float, max_restores: int) -> None:
        check_duration("probe_interval", probe_interval)
        check_duration("patience", patience)
        check_integer("max_restores", max_restores, least=1)
        self._server = server
        self._interval = probe_interval
        self._patience = patience
        self._max_restores = max_restores
        self._restores = 0
        self._restored = -HEALTHY  # when it last was; times are of time.monotonic
        self._answered = time.monotonic()  # when a request was last seen to be answered
        self._answers: dict[str, int] | None = None  # how many each model had given when the last probe failed
        self._busy = False

    def run(self) -> None:
        """Watch until the server is told to stop; ServerError when restoring it does not help."""
        due = time.monotonic()
        while not self._server.stopping:
            try:
                self._server.check_alive()
                if time.monotonic() >= due:
                    self._probe()
                    due = time.monotonic() + self._interval
            except BMRLError as fault:
                if not self._server.stopping:
                    self._restore(fault)
            time.sleep(min(POLL, self._interval))

    def _probe(self) -> None:
        """Raise BMRLError if the model is dead or hung; see who else is answered where the answer does not come."""
        before = self._answers or self._count()
        try:
            self._server.check_answer(self._patience)
            self._answered, self._answers, self._busy = time.monotonic(), None, False
            if self._answered - self._restored > HEALTHY:
                self._restores = 0
        except NoAnswerError as error:
            self._answers = self._count()
            if self._answers.get(error.model, 0) > before.get(error.model, 0):
                self._answered = time.monotonic()
                if not self._busy:
                    logger.warning("%s; busy with other requests", error)
                self._busy = True
            if time.monotonic() - self._answered > self._patience:
                raise ServerError(f"{error}, and no other request is answered") from error

    def _count(self) -> dict[str, int]:
        """Return how many requests each model has answered; none if the server does not say."""
        counts = {}
        for model in (MODEL_NAME, ENSEMBLE_NAME):
            with contextlib.suppress(ServerError):  # it may be about to end, which check_alive reports with the reason
                counts[model] = count_answers(self._server.grpc_url, min(self._patience, COUNTING), model)
        return counts

    def _restore(self, fault: BMRLError) -> None:
        """Restore the model, however often it takes; return also when the server is told to stop."""
        while True:
            if self._restores == self._max_restores:
                raise ServerError(
                    f"tritonserver: expected a model that stays alive, got {self._restores} restores without a healthy "
                    f"minute, and then: {fault}"
                ) from fault
            if not self._wait(min(2.0 ** (self._restores - 1), LONGEST_WAIT) if self._restores else 0.0):
                return
            self._restores += 1
            logger.warning("%s; restoring, attempt %d of %d", fault, self._restores, self._max_restores)
            start = time.monotonic()
            try:
                self._restore_once()
                logger.info("tritonserver: answers right again, %.1f s later", time.monotonic() - start)
                return
            except BMRLError as error:
                fault = error
            finally:
                self._restored = self._answered = time.monotonic()

    def _restore_once(self) -> None:
        if self._server.model_control == "explicit":
            try:
                logger.info("tritonserver: unloading and loading the models")
                self._server.reload()
                return
            except BMRLError as error:
                logger.warning("%s; reloading does not help", error)
        logger.info("tritonserver: restarting the server")
        self._server.restart()

    def _wait(self, seconds: float) -> bool:
        """Sleep, but no longer than the server is wanted; return whether it still is."""
        end = time.monotonic() + seconds
        while not self._server.stopping and time.monotonic() < end:
            time.sleep(POLL)
        return not self._server.stopping
