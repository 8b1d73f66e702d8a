"""The address and the TCP ports that a server listens on."""

from __future__ import annotations

import ipaddress
import socket

from bmrl.errors import RangeError, ServerError

__all__ = ["LOOPBACK", "check_host", "choose_ports", "is_loopback", "reachable"]

LOOPBACK = "127.0.0.1"
ANY = "0.0.0.0"


def check_host(host: str) -> None:
    """Check that ``host`` is an IPv4 address, for that is the only kind that all of the server's listeners bind.

    Raises:
        RangeError: it is something else, such as a name.
    """
    try:
        ipaddress.IPv4Address(host)
    except ValueError as error:
        raise RangeError(f"host: expected an IPv4 address of this machine, got {host!r}") from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that is bound to ``host``."""
    return ipaddress.IPv4Address(host).is_loopback


def reachable(host: str) -> str:
    """Return the address under which this machine reaches a server that is bound to ``host``."""
    return LOOPBACK if host == ANY else host


def choose_ports(wanted: dict[str, int | None], host: str) -> dict[str, int]:
    """Return a free port of ``host`` for each name: the wanted one, or any where None is wanted.

    Raises:
        ServerError: a wanted port is in use, asked for twice or out of range, or ``host`` is not an address of this
            machine; the message names the port.
    """
    sockets: list[socket.socket] = []
    try:
        chosen = {}
        for name, port in sorted(wanted.items(), key=lambda item: item[1] is None):  # the wanted ones first
            sockets.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            try:
                sockets[-1].bind((host, port or 0))
                sockets[-1].listen()  # or the same port could be bound twice here
            except (OSError, OverflowError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
                raise ServerError(f"{name}_port: expected a free port on {host}, got {port} ({reason})") from error
            chosen[name] = int(sockets[-1].getsockname()[1])
        return {name: chosen[name] for name in wanted}
    finally:
        for held in sockets:
            held.close()
