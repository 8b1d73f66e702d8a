"""Every wait of a client has an end, and so has what it takes from a server; images go nowhere else."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from concurrent import futures

import grpc
import pytest

from bmrl.errors import ServerError
from bmrl.export import TritonClient


def read_request(connection):
    """Take a request as far as a blank line."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return data
        data += part
    return data


def answering(*parts, endless=b""):
    """Return a behavior: send the parts, then ``endless`` for as long as the client listens."""

    def answer(connection):
        read_request(connection)
        for part in parts:
            connection.sendall(part)
        while endless:
            connection.sendall(endless)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(bytes(400_000_000), 1)


@pytest.mark.parametrize(
    ("behavior", "message"),
    [
        (answering(OK, endless=b"X-Header: x\r\n"), "400|got none within 1 s"),
        (answering(OK + b"X-Header: ", endless=b"x" * 4096), "400|got none within 1 s"),
        (answering(endless=b"HTTP/1.1 100 Continue\r\n\r\n"), "got none within 1 s"),
        (answering(OK + b"Content-Length: 100000000000\r\n\r\n", endless=bytes(2**16)), "more than 33554432 bytes"),
        (answering(OK + b"Transfer-Encoding: chunked\r\n\r\n", endless=b"1\r\nx\r\n" * 4096), "more than|within 1 s"),
        (answering(OK + b"\r\n", endless=bytes(2**16)), "more than 33554432 bytes"),
        (
            answering(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB), BOMB),
            "encoding 'gzip', which was not asked for",
        ),
        (answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 100000000000\r\n\r\n", endless=bytes(2**16)), "more than"),
    ],
    ids=["headers", "header", "continue", "body", "chunks", "unbounded", "gzip", "error"],
)
def test_an_endless_answer_has_an_end(strange_server, behavior, message):
    timeout = 1 if "within 1 s" in message else 60  # until 32 MiB have come, on a busy machine too
    with (
        strange_server(behavior) as (url, _),
        TritonClient(url, "http", timeout=timeout, retries=0) as client,
        pytest.raises(ServerError, match=message),
    ):
        client.labels()


@pytest.fixture
def unpacked():
    """Serve a description by gRPC that is 100 MB of zeros, compressed and as it is, and yield the addresses."""
    servers = []

    def serve(compression):
        options = [("grpc.max_send_message_length", -1)]
        servers.append(grpc.server(futures.ThreadPoolExecutor(1), compression=compression, options=options))
        handlers = {"ModelConfig": grpc.unary_unary_rpc_method_handler(lambda request, context: bytes(100_000_000))}
        servers[-1].add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
        )
        port = servers[-1].add_insecure_port("127.0.0.1:0")
        servers[-1].start()
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("compression", "message"),
    [
        (grpc.Compression.NoCompression, "larger than max"),
        (grpc.Compression.Gzip, "got .*Compression algorithm 'gzip'"),
    ],
)
def test_a_message_of_any_size_is_not_taken(unpacked, compression, message):
    url = unpacked(compression)
    with TritonClient(url, timeout=20, retries=0) as client, pytest.raises(ServerError, match=message):
        client.labels()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(strange_server, status):
    """Neither the question what is served, nor an image, is sent to where an answer points."""

    def elsewhere(connection):
        read_request(connection)

    with strange_server(elsewhere) as (target, asked):
        away = b"HTTP/1.1 %d Moved\r\nLocation: http://%s/\r\nContent-Length: 0\r\n\r\n" % (status, target.encode())
        with (
            strange_server(answering(away)) as (url, _),
            TritonClient(url, "http", timeout=5, retries=0) as client,
            pytest.raises(ServerError, match=rf"got \[{status}\] status {status}, a redirect, which is not followed$"),
        ):
            client.labels()
        assert asked == []


def run(program, server, **variables):
    """Run a program with the server's addresses, by HTTP and by gRPC, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if "no_proxy" not in name.lower()} | variables
    command = [sys.executable, "-c", program, server.http_url, server.grpc_url]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy", "all_proxy"), "http://127.0.0.1:9")


def test_no_proxy_is_asked_for_this_machine(obedient_server):
    program = """
import sys
from bmrl.export import TritonClient
for protocol, url in zip(("http", "grpc"), sys.argv[1:]):
    for host in ("127.0.0.1", "localhost"):
        with TritonClient(url.replace("127.0.0.1", host), protocol, timeout=10, retries=0) as client:
            print(len(client.labels()))
"""
    assert run(program, obedient_server, **PROXIES) == ["4"] * 4


FORK = """
import asyncio, os, sys
from pathlib import Path
from bmrl.errors import ServerError
from bmrl.export import AsyncTritonClient, TritonClient
from bmrl.export.triton.client.shared_memory import Region

def blocking(url, protocol):
    client = TritonClient(url, protocol, timeout=5, shared_memory=True)
    return client, client.labels, client.close

def waiting(url, protocol):
    client = AsyncTritonClient(url, protocol, timeout=5, shared_memory=True)
    return client, lambda: loop.run_until_complete(client.labels()), lambda: loop.run_until_complete(client.close())

loop = asyncio.new_event_loop()
for protocol, url in zip(("http", "grpc"), sys.argv[1:]):
    client, labels, close = MAKE(url, protocol)
    print(len(labels()), flush=True)
    region = Region(4096)
    client._session._regions._free.append(region)
    child = os.fork()
    if child == 0:
        loop = asyncio.new_event_loop()
        client._session.known_model = None
        again = MAKE(url, protocol)
        for labels in (labels, again[1]):
            try:
                print(len(labels()), flush=True)
            except ServerError as error:
                print(str(error).removeprefix(url), flush=True)
        close()
        again[2]()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert Path("/dev/shm", region.name).exists()  # which the child's end of its copy has left alone
    close()
    assert not Path("/dev/shm", region.name).exists()
"""
FORKED = ": expected a client that this process made, got one from before a fork"
LOST = (
    ": expected gRPC in an event loop to be used before this process was forked or after it, got both; HTTP may be both"
)


@pytest.mark.parametrize(("kind", "last"), [("blocking", "4"), ("waiting", LOST)])
def test_a_forked_process_is_told_to_make_a_client_of_its_own(obedient_server, kind, last):
    assert run(FORK.replace("MAKE", kind), obedient_server) == ["4", FORKED, "4", "4", FORKED, last]


def test_a_name_that_nobody_answers_for_ends_in_time():
    """Looking the host up counts as waiting, too."""
    for protocol in ("http", "grpc"):
        with (
            TritonClient("nowhere.invalid:8001", protocol, timeout=2, retries=0) as client,
            pytest.raises(ServerError, match=r"^nowhere.invalid:8001: expected an answer to get_model_config, got "),
        ):
            client.labels()
