"""What can go wrong between a client and a server, as bmrl's errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bmrl._text import shown
from bmrl.errors import RequestRefusedError, ServerError, ServerTimeoutError, ServerUnavailableError
from bmrl.export.triton.contract import import_tritonclient

if TYPE_CHECKING:
    from bmrl.export.triton.client.transports import Connection

__all__ = ["Deadline", "server_error"]

BY_STATUS = {
    "StatusCode.UNAVAILABLE": ServerUnavailableError,
    "503": ServerUnavailableError,
    "StatusCode.DEADLINE_EXCEEDED": ServerTimeoutError,
    **dict.fromkeys(
        (
            *("StatusCode.INVALID_ARGUMENT", "400"),
            *("StatusCode.NOT_FOUND", "404"),
            *("StatusCode.PERMISSION_DENIED", "403"),  # what is not switched on
            *("StatusCode.RESOURCE_EXHAUSTED", "413"),  # too large
            *("StatusCode.UNIMPLEMENTED", "415", "501"),  # compressed, or nothing that the server offers
        ),
        RequestRefusedError,
    ),
}


class Deadline:
    """The moment by which a call must have ended, ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then; negative when it has passed."""
        return self._end - time.monotonic()


def server_error(connection: Connection, called: str, deadline: Deadline, error: Exception | None) -> ServerError:
    """Return what the failure of a call means, in one line.

    Args:
        connection: the one that failed.
        called: what was called.
        deadline: of the call.
        error: what the connection raised; None: the deadline has passed before it was asked.
    """
    expected = f"{connection.url}: expected an answer to {called}"
    kind = ServerError
    if error is None or isinstance(error, TimeoutError):
        kind = ServerTimeoutError
    elif isinstance(error, connection.lost):
        kind = ServerUnavailableError
    elif isinstance(error, import_tritonclient("utils").InferenceServerException):
        kind = BY_STATUS.get(error.status(), ServerError)
    if kind is ServerTimeoutError:
        return kind(f"{expected}, got none within {deadline.seconds:g} s")
    return kind(f"{expected}, got {shown(error)}")
