from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bmrl.errors import ServerError, ServerTimeoutError
from bmrl.export import AsyncTritonClient

pytestmark = pytest.mark.server

WORDS = b"0.1 0.7 0.1 0.1"


@pytest.fixture(params=["grpc", "http"])
def client(request, obedient_server):
    return AsyncTritonClient(getattr(obedient_server, f"{request.param}_url"), request.param, timeout=30)


def assert_answer(answer, eager, rows):
    for got, expected in zip(answer, eager, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected[rows].numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 7, 19])
def test_answers_as_the_eager_model(client, images, eager, batch):
    async def run():
        async with client:
            assert_answer(await client.infer(images[:batch]), eager, slice(batch))
            assert_answer(await client.infer(images[batch - 1].numpy()), eager, batch - 1)

    asyncio.run(run())


def test_learns_everything_from_the_server(client, model):
    async def run():
        async with client:
            assert await client.labels() == tuple(generator.name for generator in model.config.generators)
            known = await client.model()
            assert (known.image_size, known.embed_dim, known.max_batch_size) == (32, 24, 8)
            assert await client.model() is known

    asyncio.run(run())


def test_many_calls_at_once_get_their_own_answers(client, images, eager):
    rows = [row for _ in range(6) for row in range(len(images))]

    async def run():
        async with client:
            return await asyncio.gather(*(client.infer(images[row : row + 1]) for row in rows))

    for row, answer in zip(rows, asyncio.run(run()), strict=True):
        assert_answer(answer, eager, slice(row, row + 1))


def test_a_call_that_waits_holds_up_no_other(client, images, eager):
    async def run():
        async with client:
            slow = asyncio.create_task(client.attribute([b"wait 1 " + WORDS]))
            await asyncio.sleep(0.2)
            assert_answer(await client.infer(images[:2]), eager, slice(2))
            assert not slow.done()
            assert [answer.generator for answer in await slow] == ["StyleGAN3"]

    asyncio.run(run())


def test_a_cancelled_call_leaves_the_client_well(client, images, eager):
    async def run():
        async with client:
            with pytest.raises(TimeoutError) as error:
                await asyncio.wait_for(client.attribute([b"wait 0.5 " + WORDS]), 0.1)
            assert not isinstance(error.value, ServerTimeoutError)
            assert_answer(await client.infer(images[:2]), eager, slice(2))

    asyncio.run(run())


def test_may_be_closed_twice_and_is_of_no_use_then(client, images):
    assert repr(client) == f"AsyncTritonClient({client.url!r}, {client.protocol!r})"

    async def run():
        await client.infer(images)
        await client.close()
        await client.close()
        for use in (lambda: client.infer(images), lambda: client.attribute([WORDS])):
            with pytest.raises(ServerError, match=f"^{client.url}: expected an open client, got one that is closed$"):
                await use()
        assert len(await client.labels()) == 4  # what is known needs no server

    asyncio.run(run())


def test_may_be_made_outside_of_an_event_loop_and_closed_unused(client):
    asyncio.run(client.close())

    async def run():
        with pytest.raises(ServerError, match="expected an open client, got one that is closed"):
            await client.model()

    asyncio.run(run())
