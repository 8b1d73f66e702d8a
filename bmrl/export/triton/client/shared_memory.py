"""Regions of system shared memory through which a client and a server on the same machine pass tensors."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bmrl.errors import ServerError, ServerTimeoutError, ServerUnavailableError
from bmrl.export.triton.contract import import_tritonclient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import numpy.typing as npt

    from bmrl.export.triton.client.failures import Deadline

__all__ = ["Region", "SharedRegions"]

FOLDER = Path("/dev/shm")
PAUSE = 0.01  # seconds


class Region:
    """A new region of ``size`` bytes that only this user's processes can open, under an unguessable name.

    Raises:
        ServerError: there is not that much shared memory.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.name = f"bmrl-{secrets.token_hex(16)}"
        self._api = import_tritonclient("utils.shared_memory")
        try:
            self._handle = self._api.create_shared_memory_region(self.name, self.name, size, create_only=True)
            try:
                self._allocate()
            except BaseException:
                self.remove()
                raise
        except (OSError, self._api.SharedMemoryException) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ServerError(f"shared_memory: expected {size} free bytes, got {reason}") from error

    def write(self, array: npt.NDArray[Any], size: int) -> None:
        """Copy an array to the start of the region, and fill the rest of ``size`` bytes with ones.

        So an output that the server did not write is NaN, -1 or an invalid boolean, and not that of an earlier answer.
        """
        rest = np.full(size - array.nbytes, 0xFF, np.uint8)
        self._api.set_shared_memory_region(self._handle, [np.ascontiguousarray(array), rest])

    def read(self, size: int, offset: int) -> bytes:
        """Return a copy of the bytes at ``offset``."""
        contents: npt.NDArray[np.uint8] = self._api.get_contents_as_numpy(self._handle, np.uint8, (size,), offset)
        return contents.tobytes()

    def remove(self) -> None:
        """Remove the region from this machine; a server that still has it open is not affected."""
        with contextlib.suppress(FileNotFoundError):  # another process has cleaned up
            self._api.destroy_shared_memory_region(self._handle)

    def _allocate(self) -> None:
        """Take the memory now: where it is short, the first write beyond it would kill the process."""
        descriptor = os.open(FOLDER / self.name, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, self.size)
        finally:
            os.close(descriptor)


class Call(Protocol):
    """Calls a method of the server."""

    async def __call__(self, method: str, *arguments: Any, deadline: Deadline) -> Any: ...


class SharedRegions:
    """Hands a region to every request under way and keeps it for the next one. Threads may share it.

    A region of a request that failed is never used again, because the server may write to it later.
    """

    def __init__(self, call: Call, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._call = call
        self._sleep = sleep
        self._free: deque[Region] = deque()
        self._retired: deque[str] = deque()  # removed here, and perhaps still registered at the server
        self._closed = False

    @contextlib.asynccontextmanager
    async def take(self, size: int, deadline: Deadline) -> AsyncIterator[Region]:
        """Give a region of at least ``size`` bytes, registered at the server, for one request.

        Raises:
            ServerError: there is no memory for it, or the server does not take it.
        """
        region = self._pop()
        if region is not None and region.size < size:
            self._retire(region)
            region = None
        await self._unregister_retired(deadline)
        if region is None:
            region = Region(1 << (size - 1).bit_length())  # a power of two, so that it is not outgrown at every step
            try:
                await self._call(
                    "register_system_shared_memory", region.name, region.name, region.size, deadline=deadline
                )
            except BaseException:
                self._retire(region)
                raise
        try:
            yield region
        except BaseException:
            self._retire(region)
            raise
        self._free.append(region)
        if self._closed:
            self.retire_free()

    def retire_free(self) -> None:
        """Remove all regions that no request uses."""
        while (region := self._pop()) is not None:
            self._retire(region)

    async def close(self, deadline: Deadline) -> None:
        """Remove all regions, and have the server release them unless it is gone or uses them until ``deadline``."""
        self._closed = True
        self.retire_free()
        while await self._unregister_retired(deadline) and deadline.left() > PAUSE:
            await self._sleep(PAUSE)  # a server uses a region for a moment after it has answered

    def _pop(self) -> Region | None:
        try:
            return self._free.pop()
        except IndexError:
            return None

    def _retire(self, region: Region) -> None:
        self._retired.append(region.name)
        region.remove()

    async def _unregister_retired(self, deadline: Deadline) -> bool:
        """Return whether it is worthwhile to call again, because the server still uses a region."""
        in_use = False
        for _ in range(len(self._retired)):
            try:
                name = self._retired.popleft()
            except IndexError:  # another thread was faster
                break
            try:
                await self._call("unregister_system_shared_memory", name, deadline=deadline)
            except ServerError as error:
                self._retired.append(name)
                in_use |= not isinstance(error, ServerUnavailableError | ServerTimeoutError)
        return in_use
