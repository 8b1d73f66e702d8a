"""Memory that the threads of a process share, so that many readers take no more of it than a few."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MemoryBudget", "trim"]

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Give freed memory back to the system, after something large was freed.

    glibc keeps what a thread has freed for the same thread, so that each of many threads would hold the memory of its
    largest image. Other C libraries have no such function and need none.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


class MemoryBudget:
    """A number of bytes; a thread that needs more than are free waits for its turn.

    Args:
        total: bytes, > 0.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # the threads that hold some don't exist in the child

    def _reset(self) -> None:
        self._used = 0
        self._changed = threading.Condition()
        self._queue = threading.Lock()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Account for ``amount`` bytes while the block runs; what needs more than the total runs alone.

        A thread must not take twice from one budget: it might wait for itself.
        """
        amount = min(amount, self.total)
        with self._queue, self._changed:  # first come, first served; otherwise a large one might wait forever
            self._changed.wait_for(lambda: self._used + amount <= self.total)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()
