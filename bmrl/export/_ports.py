"""TCP ports of the loopback interface."""

from __future__ import annotations

import socket

from bmrl.errors import ServerError

__all__ = ["LOOPBACK", "choose_ports"]

LOOPBACK = "127.0.0.1"


def choose_ports(wanted: dict[str, int | None]) -> dict[str, int]:
    """Return a free port for each name: the wanted one, or any where None is wanted.

    Raises:
        ServerError: a wanted port is in use, asked for twice or out of range; the message names it.
    """
    sockets: list[socket.socket] = []
    try:
        chosen = {}
        for name, port in sorted(wanted.items(), key=lambda item: item[1] is None):  # the wanted ones first
            sockets.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            try:
                sockets[-1].bind((LOOPBACK, port or 0))
                sockets[-1].listen()  # or the same port could be bound twice here
            except (OSError, OverflowError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
                raise ServerError(f"{name}_port: expected a free port on {LOOPBACK}, got {port} ({reason})") from error
            chosen[name] = int(sockets[-1].getsockname()[1])
        return {name: chosen[name] for name in wanted}
    finally:
        for held in sockets:
            held.close()
