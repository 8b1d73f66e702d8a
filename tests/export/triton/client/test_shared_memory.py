"""Tensors through system shared memory: the same answers, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc

from bmrl.errors import RequestRefusedError, ServerError, ServerTimeoutError, ServerUnavailableError
from bmrl.export import AsyncTritonClient, TritonClient, TritonServer
from bmrl.export.triton.client.shared_memory import Region

pytestmark = pytest.mark.server

WORDS = b"0.1 0.7 0.1 0.1"


def regions():
    """Return the names of all clients' regions on this machine, which no other test makes meanwhile."""
    return {path.name for path in Path("/dev/shm").iterdir() if re.fullmatch(r"bmrl-[0-9a-f]{32}", path.name)}


@pytest.fixture(autouse=True)
def nothing_left():
    assert regions() == set()
    yield
    assert regions() == set()


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture
def client(protocol, obedient_server):
    url = getattr(obedient_server, f"{protocol}_url")
    with TritonClient(url, protocol, shared_memory=True) as client:
        yield client


@pytest.fixture
def registered(obedient_server):
    """Return a function that says which regions the server knows, with their sizes."""
    with tritonclient.grpc.InferenceServerClient(obedient_server.grpc_url) as connection:

        def registered():
            return {name: region.byte_size for name, region in status().items() if name.startswith("bmrl-")}

        def status():
            return connection.get_system_shared_memory_status().regions

        yield registered


def until(condition):
    """Wait for what a server does when it has answered."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


def assert_answer(answer, eager, rows):
    for got, expected in zip(answer, eager, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected[rows].numpy(), rtol=0, atol=1e-4)


def test_answers_as_without(ask, obedient_server, images, eager):
    assert_answer(ask(obedient_server, "infer", images, shared_memory=True), eager, slice(None))
    assert_answer(ask(obedient_server, "infer", images[3], shared_memory=True), eager, 3)
    with_memory, without = (
        ask(obedient_server, "attribute", [WORDS, b"0.4 0.2 0.2 0.2"], shared_memory=shared) for shared in (True, False)
    )
    assert with_memory == without


def test_takes_images_whatever_their_layout(client, images, eager):
    channels_last = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    assert_answer(client.infer(channels_last.transpose(0, 3, 1, 2)[::-2]), eager, list(range(18, -1, -2)))


def test_pixels_do_not_travel(obedient_server, network, images, protocol):
    sent = {}
    for shared in (True, False):
        with (
            network(getattr(obedient_server, f"{protocol}_url")) as way,
            TritonClient(way.url, protocol, shared_memory=shared) as client,
        ):
            client.labels()
            before = way.num_bytes
            client.infer(images[:8])
            sent[shared] = way.num_bytes - before
    pixels = images[:8].numel()
    assert sent[True] < pixels / 4 < pixels < sent[False]


def test_one_region_serves_call_after_call_and_grows(client, images, registered):
    client.infer(images[:1])
    (small,) = regions()
    for _ in range(3):
        client.infer(images[:1])
        assert regions() == {small}
    client.infer(images)
    (large,) = regions()
    assert large != small
    until(lambda: client.infer(images[:1]) and registered() == {large: 32768})  # 8 images of 3072 bytes and more
    assert regions() == {large}
    client.close()
    assert registered() == {}


def test_threads_that_share_a_client_get_their_own_answers(client, images, eager, registered):
    with ThreadPoolExecutor(8) as pool:
        rows = [row for _ in range(4) for row in range(len(images))]
        answers = list(pool.map(lambda row: client.infer(images[row : row + 1 + row % 3]), rows))
    for row, answer in zip(rows, answers, strict=True):
        assert_answer(answer, eager, slice(row, row + 1 + row % 3))
    assert 1 <= len(regions()) <= 8
    client.close()
    assert registered() == {}


def test_calls_at_once_in_an_event_loop_get_their_own_answers(obedient_server, protocol, images, eager):
    rows = [row for _ in range(3) for row in range(len(images))]

    async def run():
        url = getattr(obedient_server, f"{protocol}_url")
        async with AsyncTritonClient(url, protocol, shared_memory=True) as client:
            return await asyncio.gather(*(client.infer(images[row : row + 1]) for row in rows))

    for row, answer in zip(rows, asyncio.run(run()), strict=True):
        assert_answer(answer, eager, slice(row, row + 1))


def test_answers_stay_as_they_are(client, images, eager):
    first = client.infer(images[:2])
    client.infer(images[5:9])
    client.close()
    assert_answer(first, eager, slice(2))


def test_a_region_that_the_server_may_still_write_to_is_not_used_again(obedient_server, protocol, registered):
    url = getattr(obedient_server, f"{protocol}_url")
    with TritonClient(url, protocol) as client:
        client.attribute([WORDS])  # the first answer of a server takes longer
    with TritonClient(url, protocol, shared_memory=True, timeout=0.4) as client:
        client.attribute([WORDS])
        (first,) = regions()
        with pytest.raises(ServerTimeoutError, match=r"expected an answer to attribute, got none within 0.4 s"):
            client.attribute([b"wait 1 " + WORDS])
        assert regions() == set()
        assert set(registered()) == {first}  # the server does not give up what it uses

        def forgotten():
            with contextlib.suppress(ServerTimeoutError):  # behind the one that waits
                assert client.attribute([WORDS])[0].generator == "StyleGAN3"
            return first not in registered()

        until(forgotten)
    assert registered() == {}


def test_closing_waits_until_the_server_lets_go(obedient_server, protocol, registered):
    url = getattr(obedient_server, f"{protocol}_url")
    with TritonClient(url, protocol, shared_memory=True, timeout=0.3) as client:
        assert client.labels()
        with pytest.raises(ServerTimeoutError, match="expected an answer to attribute, got none"):
            client.attribute([b"wait 0.7 " + WORDS])
    assert registered() == {}


def test_a_request_that_is_refused_leaves_nothing(client, registered):
    for code, kind in (("INVALID_ARG", RequestRefusedError), ("INTERNAL", ServerError)):
        with pytest.raises(kind, match="as ordered"):
            client.attribute([b"fail %s 100 %s" % (code.encode(), WORDS)])
        assert regions() == set()
    until(lambda: client.attribute([WORDS]) and set(registered()) == regions())
    assert len(regions()) == 1
    client.close()
    assert registered() == {}


def test_a_server_that_has_forgotten_the_regions_is_told_again(client, images, eager, obedient_server, registered):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client.infer, [images] * 8))
    before = regions()
    with tritonclient.grpc.InferenceServerClient(obedient_server.grpc_url) as connection:
        connection.unregister_system_shared_memory()  # all of them, as if it were another server
    assert_answer(client.infer(images[:3]), eager, slice(3))
    assert len(regions()) == 1
    assert not regions() & before
    assert set(registered()) == regions()


def test_a_cancelled_call_leaves_nothing(obedient_server, protocol, images, eager):
    async def run():
        url = getattr(obedient_server, f"{protocol}_url")
        async with AsyncTritonClient(url, protocol, shared_memory=True) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.attribute([b"wait 0.5 " + WORDS]), 0.1)
            assert regions() == set()
            assert_answer(await client.infer(images[:2]), eager, slice(2))

    asyncio.run(run())


def test_a_server_that_does_not_see_the_memory_says_so(client, images, monkeypatch):
    monkeypatch.setattr(Region, "_allocate", lambda region: (Path("/dev/shm") / region.name).unlink())
    with pytest.raises(ServerError, match=r"expected an answer to register_system_shared_memory, got .*Unable to open"):
        client.infer(images)


def test_too_little_memory_is_an_error():
    size = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    with pytest.raises(ServerError, match=rf"^shared_memory: expected {2 * size} free bytes, got .*No space left"):
        Region(2 * size)


def test_a_killed_server_leaves_nothing(repository, images):
    with TritonServer(repository, shared_memory=True) as server:
        urls = {"grpc": server.grpc_url, "http": server.http_url}
        clients = [
            TritonClient(url, protocol, shared_memory=True, retries=retries, backoff=0.01)
            for protocol, url in urls.items()
            for retries in (0, 2)
        ]
        for client in clients:
            client.infer(images)
        assert len(regions()) == 4
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerUnavailableError, match="expected an answer to infer, got"):
            clients[0].infer(images)
        with pytest.raises(ServerUnavailableError, match="expected an answer to register_system_shared_memory, got"):
            clients[1].infer(images)
        for client in clients:
            client.close()
        assert regions() == set()


def test_what_the_server_does_not_write_is_no_earlier_answer():
    region = Region(4096)
    try:
        region.write(np.zeros(4096, np.uint8), 4096)  # as if an answer lay there
        region.write(np.arange(8, dtype=np.uint8), 64)
        assert region.read(8, 0) == bytes(range(8))
        assert np.isnan(np.frombuffer(region.read(56, 8), np.float32)).all()
    finally:
        region.remove()
