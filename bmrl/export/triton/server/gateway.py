"""The gateway before the server's ports: passes on what a model can be asked, and refuses what would harm the server.

Triton 2.51.0 allocates as much memory as a request names: a JSON tensor of 95 bytes ends it, and a compressed message
of a few hundred kilobytes becomes hundreds of megabytes that it keeps. It has no option against either. So it listens
on Unix sockets in a private folder, and this program on the ports. It needs aiohttp and gRPC, and no bmrl, and runs in
the folder of the sockets::

    python -I gateway.py '{"host": "127.0.0.1", "ports": {...}, "max_bytes": 1000000, ...}'

Its standard input is a pipe that is never written to. When that ends, the program that started the server is dead: the
gateway then ends the server, and removes the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import resource
import select
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SOCKETS = {"http": "http", "grpc": "grpc:0", "metrics": "metrics"}  # Triton adds the port, of which gRPC makes a name
MAX_HEADER = 8 * 2**20
"""Bytes of a request that are not a binary tensor; in memory they take up to 30 times as much."""

_NAME = r"[\w.~-]+"
_MODEL = rf"/v2/models/{_NAME}(?:/versions/{_NAME})?"
INFER = re.compile(rf"{_MODEL}/infer", re.ASCII)
QUESTIONS = re.compile(rf"/v2(?:/health/(?:live|ready)|/models/stats)?|{_MODEL}(?:/(?:ready|config|stats))?", re.ASCII)
SHARED_MEMORY = re.compile(
    rf"/v2/systemsharedmemory(?:/region/{_NAME})?/(?:status|register|unregister)|/v2/cudasharedmemory/status", re.ASCII
)
MODEL_CONTROL = re.compile(rf"/v2/repository/(?:index|models/{_NAME}/(?:load|unload))", re.ASCII)

_SERVICE = "/inference.GRPCInferenceService/"
METHODS = {f"{_SERVICE}{name}" for name in ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady")}
METHODS |= {f"{_SERVICE}{name}" for name in ("ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer")}
METHODS |= {"/grpc.health.v1.Health/Check"}
SHARED_MEMORY_METHODS = {
    f"{_SERVICE}{name}"
    for name in (
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
    )
}
MODEL_CONTROL_METHODS = {
    f"{_SERVICE}{name}" for name in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
}
OFF = "expected what this server offers, got a request for %s, which is not switched on here"


# HTTP


def refusal(status: int, message: str) -> web.Response:
    """Return an error in the form of Triton's own."""
    return web.json_response({"error": message}, status=status)


def checked_inference(body: bytes, header_size: str | None) -> tuple[bytes, int | None]:
    """Return body and header size of an inference request that asks Triton for no more memory than it has itself.

    The JSON is written again: of two entries with one name Triton would take the first, and Python has read the last.

    Raises:
        ValueError: the request is none, or does ask for more.
    """
    if header_size is None:
        size = len(body)
    else:
        if not re.fullmatch(r"[0-9]{1,15}", header_size) or int(header_size) > len(body):
            raise ValueError(f"Inference-Header-Content-Length: expected 0 to {len(body)}, got {header_size[:40]!r}")
        size = int(header_size)
    if size > MAX_HEADER:
        raise ValueError(f"request: expected at most {MAX_HEADER} bytes of JSON, got {size}; send binary tensors")
    try:
        request = json.loads(body[:size])
    except RecursionError:
        raise ValueError("request: expected JSON, got one that is nested too deep") from None
    except ValueError:
        raise ValueError("request: expected JSON, got something else") from None
    tensors = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(tensors, list):
        raise ValueError("inputs: expected a list of tensors, got none")
    for tensor in tensors:
        _check_tensor(tensor, len(body))
    header = json.dumps(request, allow_nan=False, separators=(",", ":")).encode()
    return header + body[size:], None if header_size is None else len(header)


def _check_tensor(tensor: Any, most: int) -> None:
    """Raise ValueError where a shape has more elements than the request has bytes, or a uint8 is none.

    Each element takes a byte at least. Triton would take a uint8 modulo 256.
    """
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("shape: expected a list of integers >= 0, got something else")
    parameters = tensor.get("parameters")
    if isinstance(parameters, dict) and "shared_memory_region" in parameters:
        return  # Triton compares with the region's size
    if len(shape) > 100 or math.prod(shape) > most:
        raise ValueError(f"shape: expected at most as many elements as bytes in the request ({most}), got more")
    if tensor.get("datatype") == "UINT8":
        _check_uint8(tensor.get("data", []))


def _check_uint8(data: Any) -> None:
    left = [data]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        elif type(value) is not int or not 0 <= value <= 255:
            raise ValueError("data: expected integers from 0 to 255 for UINT8, got something else")


class HTTP:
    """Passes HTTP requests on to Triton, through ``session``."""

    def __init__(self, session: aiohttp.ClientSession, options: dict[str, Any]) -> None:
        self._session = session
        self._options = options

    async def infer(self, request: web.Request) -> web.Response:
        """Check an inference request and pass it on."""
        size = request.headers.get("Inference-Header-Content-Length")
        try:
            body, header_size = checked_inference(await request.read(), size)
        except ValueError as error:
            return refusal(400, str(error))
        return await self._pass_on(request, body, header_size)

    async def other(self, request: web.Request) -> web.Response:
        """Pass on what is allowed, and refuse the rest."""
        path, shared, control = request.rel_url.raw_path, self._options["shared_memory"], self._options["model_control"]
        if request.method == "POST" and INFER.fullmatch(path):
            return await self.infer(request)
        if request.method == "GET" and QUESTIONS.fullmatch(path):
            return await self._pass_on(request, b"")
        for what, pattern, on in (("shared memory", SHARED_MEMORY, shared), ("models", MODEL_CONTROL, control)):
            if pattern.fullmatch(path):
                return await self._pass_on(request, await request.read()) if on else refusal(403, OFF % what)
        return refusal(404, OFF % "another page")

    async def metrics(self, request: web.Request) -> web.Response:
        """Pass on a request for metrics."""
        return await self._pass_on(request, b"")

    async def _pass_on(self, request: web.Request, body: bytes, header_size: int | None = None) -> web.Response:
        headers = {"Accept-Encoding": "identity"}
        if header_size is not None:
            headers["Inference-Header-Content-Length"] = str(header_size)
        try:
            async with self._session.request(
                request.method, request.rel_url.raw_path, data=body or None, headers=headers
            ) as answer:
                content = await answer.read()
                kept = ("Content-Type", "Inference-Header-Content-Length")
                headers = {name: answer.headers[name] for name in kept if name in answer.headers}
                return web.Response(status=answer.status, body=content, headers=headers)
        except (aiohttp.ClientError, OSError) as error:
            return refusal(503, f"server: expected an answer, got {' '.join(str(error).split())}")


@web.middleware
async def refuse_encodings(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse compressed bodies, and say in JSON what aiohttp would in text."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        return refusal(415, "Content-Encoding: expected none, got a compressed request")
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        most = request.client_max_size
        return refusal(413, f"request: expected at most {most} bytes, got more")
    except web.HTTPException as error:
        return refusal(error.status, f"request: expected one that this server takes, got: {error.reason}")


async def open_http(name: str, options: dict[str, Any]) -> web.AppRunner:
    """Listen on the port for ``http`` or for ``metrics``."""
    connector = aiohttp.UnixConnector(SOCKETS[name], limit=0, force_close=True)  # an open one would delay Triton's end
    session = aiohttp.ClientSession("http://triton", connector=connector, timeout=aiohttp.ClientTimeout())
    passed = HTTP(session, options)
    application = web.Application(client_max_size=options["max_bytes"], middlewares=[refuse_encodings])
    application.on_cleanup.append(lambda _: session.close())
    if name == "metrics":
        application.router.add_get("/metrics", passed.metrics)
    else:
        application.router.add_route("*", "/{path:.*}", passed.other)
    runner = web.AppRunner(
        application, auto_decompress=False, access_log=None, shutdown_timeout=options["exit_timeout"]
    )
    await runner.setup()
    await web.TCPSite(runner, options["host"], options["ports"][name]).start()
    return runner


# gRPC


def bytes_without_tensors(message: bytes) -> int:
    """Return how many bytes of a ``ModelInferRequest`` are something other than ``raw_input_contents``.

    Raises:
        ValueError: it is not a message of protobuf.
    """
    place, raw = 0, 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind == 2:
            size, place = _varint(message, place)
            place += size
            raw += size if key >> 3 == 7 else 0
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError("request: expected a message of protobuf, got something else")
    if place != len(message):
        raise ValueError("request: expected a message of protobuf, got part of one")
    return len(message) - raw


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("request: expected a message of protobuf, got part of one")


class GRPC(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes the calls of the methods that are allowed on to Triton, as the bytes they are."""

    def __init__(self, channel: grpc.aio.Channel, options: dict[str, Any]) -> None:
        self._channel = channel
        self._allowed = set(METHODS)
        if options["shared_memory"]:
            self._allowed |= SHARED_MEMORY_METHODS
        if options["model_control"]:
            self._allowed |= MODEL_CONTROL_METHODS

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return what answers the calls of a method."""
        method = handler_call_details.method
        if method in self._allowed:
            return grpc.unary_unary_rpc_method_handler(self._passing_on(method))
        for what, methods in (("shared memory", SHARED_MEMORY_METHODS), ("models", MODEL_CONTROL_METHODS)):
            if method in methods:
                return grpc.unary_unary_rpc_method_handler(_refusing(OFF % what))
        return None  # gRPC answers that it is not implemented

    def _passing_on(self, method: str) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
        call = self._channel.unary_unary(method)

        async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                size = bytes_without_tensors(request)
                if size > MAX_HEADER:
                    raise ValueError(
                        f"request: expected at most {MAX_HEADER} bytes without raw_input_contents, got {size}"
                    )
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            try:
                return await call(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", error.trailing_metadata() or ())
                raise

        return answer


def _refusing(message: str) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, message)
        raise AssertionError("abort raises")

    return answer


async def open_grpc(options: dict[str, Any]) -> grpc.aio.Server:
    """Listen on the port for gRPC."""
    pauses = [(f"grpc.{name}_reconnect_backoff_ms", 200) for name in ("initial", "min", "max")]
    sizes = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    channel = grpc.aio.insecure_channel(f"unix:{SOCKETS['grpc']}", options=[*sizes, *pauses])
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options["max_bytes"]),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: or a message would be unpacked unseen
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers((GRPC(channel, options),))
    server.add_insecure_port(f"{options['host']}:{options['ports']['grpc']}")
    await server.start()
    return server


# The program


async def until_open() -> None:
    """Wait for the server's sockets, which open when its models are loaded."""
    for path in SOCKETS.values():
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(path)
                writer.close()
                break
            await asyncio.sleep(0.05)


async def run(options: dict[str, Any], stopped: asyncio.Event) -> None:
    """Pass requests on until ``stopped``, and finish those under way."""
    waiting = [asyncio.ensure_future(until_open()), asyncio.ensure_future(stopped.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    if stopped.is_set():
        return
    server = await open_grpc(options)
    runners = [await open_http(name, options) for name in ("http", "metrics")]
    await stopped.wait()
    await asyncio.gather(server.stop(options["exit_timeout"]), *(runner.cleanup() for runner in runners))


async def main() -> None:
    """Run until SIGTERM, or until the program that started this one is dead; then clean up after it."""
    options = json.loads(sys.argv[1])
    server = os.pidfd_open(options["server"])
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    orphaned = False

    def end() -> None:
        nonlocal orphaned
        orphaned = True
        loop.remove_reader(0)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(server, signal.SIGTERM)
        stopped.set()

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # often only 1,024 until it is asked for
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    loop.add_reader(0, end)
    await run(options, stopped)
    if orphaned:
        select.select([server], [], [], options["exit_timeout"] + 5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(options["server"], signal.SIGKILL)
        clean_up(Path.cwd())


def clean_up(scratch: Path) -> None:
    """Remove the folder of a server that has ended, and what it has left in shared memory."""
    for leftover in Path("/dev/shm").glob(f"{scratch.name}*"):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
