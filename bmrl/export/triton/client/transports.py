"""The ways to a server: gRPC that blocks, and gRPC and HTTP that wait in an event loop.

All three are called by the same coroutines. :func:`run_now` and :class:`LoopThread` run those for callers that block.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from bmrl.errors import ServerError
from bmrl.export.triton.client.answers import MOST_BYTES
from bmrl.export.triton.client.http_transport import HTTPClient
from bmrl.export.triton.contract import import_tritonclient

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = [
    "AsyncGRPCConnection",
    "AsyncHTTPConnection",
    "BlockingGRPCConnection",
    "Connection",
    "LoopThread",
    "run_now",
]

T = TypeVar("T")
MIN_RECONNECT_BACKOFF = 0.1  # seconds; gRPC takes no less


class Connection(ABC):
    """A way to the server at ``url``; ``backoff`` is what its user waits, in seconds, before it tries again."""

    lost: tuple[type[Exception], ...] = (ConnectionError,)
    """Errors of :meth:`call` which say that the connection could not be made, or ended before an answer."""

    def __init__(self, url: str, backoff: float) -> None:
        self.url = url
        self._backoff = backoff

    @abstractmethod
    async def call(self, method: str, *arguments: Any, timeout: float, **options: Any) -> Any:
        """Call a method of tritonclient's ``InferenceServerClient``; ``timeout`` seconds bound it."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection."""


class BlockingGRPCConnection(Connection):
    """Blocks the thread where the others wait. Threads may share it."""

    def __init__(self, url: str, backoff: float) -> None:
        super().__init__(url, backoff)
        arguments = _channel_arguments(url, backoff)
        self._client = import_tritonclient("grpc").InferenceServerClient(url, channel_args=arguments)

    async def call(self, method: str, *arguments: Any, timeout: float, **options: Any) -> Any:
        """See :meth:`Connection.call`."""
        return getattr(self._client, method)(*arguments, client_timeout=timeout, **options)

    async def sleep(self, seconds: float) -> None:
        """See :meth:`Connection.sleep`."""
        time.sleep(seconds)

    async def close(self) -> None:
        """See :meth:`Connection.close`."""
        self._client.close()


class _AsyncConnection(Connection):
    """Belongs to the event loop of its first call, because that is where tritonclient must be opened."""

    _client: Any = None

    @abstractmethod
    def _open(self) -> Any:
        """Return a new client of tritonclient."""

    def _opened(self) -> Any:
        if self._client is None:
            self._client = self._open()
        return self._client

    async def sleep(self, seconds: float) -> None:
        """See :meth:`Connection.sleep`."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """See :meth:`Connection.close`."""
        if self._client is not None:
            await self._client.close()


class AsyncGRPCConnection(_AsyncConnection):
    """gRPC in an event loop."""

    _process: int | None = None
    """The one that first used gRPC in an event loop: what runs it there does not come along with a fork."""

    def __init__(self, url: str, backoff: float) -> None:
        super().__init__(url, backoff)
        self._api = import_tritonclient("grpc.aio")

    def _open(self) -> Any:
        first = AsyncGRPCConnection._process = AsyncGRPCConnection._process or os.getpid()
        if first != os.getpid():
            raise ServerError(
                f"{self.url}: expected gRPC in an event loop to be used before this process was forked or after it, "
                "got both; HTTP may be both"
            )
        arguments = _channel_arguments(self.url, self._backoff)
        return self._api.InferenceServerClient(self.url, channel_args=arguments)

    async def call(self, method: str, *arguments: Any, timeout: float, **options: Any) -> Any:
        """See :meth:`Connection.call`."""
        client = self._opened()
        async with asyncio.timeout(timeout + 1):  # gRPC's own comes first, unless a fork has stopped it
            return await getattr(client, method)(*arguments, client_timeout=timeout, **options)


class AsyncHTTPConnection(_AsyncConnection):
    """HTTP in an event loop. aiohttp itself sends a GET, but no request for inference, a second time at once."""

    def __init__(self, url: str, backoff: float) -> None:
        super().__init__(url, backoff)
        import_tritonclient("http.aio")  # here, and not at the first call, to say that it is missing
        from aiohttp import ClientConnectionError

        self.lost += (ClientConnectionError,)

    def _open(self) -> Any:
        return HTTPClient(self.url)

    async def call(self, method: str, *arguments: Any, timeout: float, **options: Any) -> Any:
        """See :meth:`Connection.call`."""
        async with asyncio.timeout(timeout):
            return await getattr(self._opened(), method)(*arguments, **options)


class LoopThread:
    """An event loop in its own thread, for callers that block. Threads may share it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="bmrl-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine, which is cancelled if the caller is interrupted.

        Raises:
            ServerError: another thread has closed the loop meanwhile.
        """
        closed = "client: expected to stay open until it has answered, got closed"
        with self._lock:
            if self._closed:
                coroutine.close()
                raise ServerError(closed)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise ServerError(closed) from error
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the coroutines that run, the loop and the thread; calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits, because its connection blocks instead."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a coroutine over a blocking connection has waited")


def _channel_arguments(url: str, backoff: float) -> list[tuple[str, int]]:
    """Return gRPC's settings of a connection that the calls of one client share.

    By default a channel that could not connect fails every call of the next second without trying, so that no retry
    within that second is one; and channels to the same address share this state. A compressed message, which
    was never requested, would be unpacked before its size is known; and a proxy, where the environment names one, would
    be asked for this machine too.
    """
    pause = round(1000 * max(backoff, MIN_RECONNECT_BACKOFF))
    arguments = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", MOST_BYTES),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none but identity
        ("grpc.initial_reconnect_backoff_ms", pause),
        ("grpc.max_reconnect_backoff_ms", pause),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return [*arguments, ("grpc.enable_http_proxy", 0)] if _is_this_machine(url) else arguments


def _is_this_machine(url: str) -> bool:
    host = url.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    return address.is_loopback or address.is_unspecified
