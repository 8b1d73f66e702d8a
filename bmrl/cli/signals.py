"""SIGTERM, SIGHUP and SIGINT end a command as Ctrl-C does: what was finished is written, and the exit code says so."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Stopped", "stopping_signals", "uninterrupted"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BURST = 1.0
"""Seconds: ``timeout``, a closing terminal and some supervisors send one stop as several signals."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class _Watch:
    """What came, and whether it has to wait."""

    def __init__(self) -> None:
        self.depth = 0
        self.waiting: int | None = None
        self.first: float | None = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = now
            if self.depth:
                self.waiting = signum
            else:
                raise Stopped(signum)
        elif now - self.first > BURST:  # a second stop, meant as such
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def release(self) -> None:
        if not self.depth and self.waiting is not None:
            signum, self.waiting = self.waiting, None
            raise Stopped(signum)


_watch = _Watch()


@contextlib.contextmanager
def stopping_signals() -> Iterator[None]:
    """Raise :class:`Stopped` in the main thread when a signal comes; a second one ends the process at once.

    A signal that is ignored, such as SIGHUP under ``nohup``, stays so. Outside the main thread nothing changes.
    """
    global _watch
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _watch = _watch, _Watch()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, _watch.handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _watch = outer


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal that comes within the block wait for its end, so that a line of output is whole or not there."""
    watch = _watch
    watch.depth += 1
    try:
        yield
    finally:
        watch.depth -= 1
    watch.release()
