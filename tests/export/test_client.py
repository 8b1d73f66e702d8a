from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bmrl.errors import DTypeError, RangeError, ServerError, ShapeError
from bmrl.export import ServedModel, TritonClient

pytestmark = pytest.mark.server
PROTOCOLS = ["grpc", "http"]


@pytest.fixture(params=PROTOCOLS)
def client(request, server):
    url = {"grpc": server.grpc_url, "http": server.http_url}[request.param]
    with TritonClient(url, request.param, timeout=30) as client:
        yield client


def assert_answer(answer, eager, rows):
    for name, got, expected in zip(("probabilities", "embedding"), answer, eager, strict=True):
        assert got.dtype == np.float32, name
        np.testing.assert_allclose(got, expected[rows].numpy(), rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_answers_as_the_eager_model(client, images, eager, batch):
    answer = client.infer(images[:batch])
    assert_answer(answer, eager, slice(batch))
    assert answer.probabilities is answer[0]
    assert answer.embedding is answer[1]


def test_splits_a_batch_above_the_servers_limit(client, images, eager):
    assert client.model.max_batch_size == 8 < len(images) == 19
    assert_answer(client.infer(images), eager, slice(None))


def test_takes_numpy_arrays_whatever_their_layout(client, images, eager):
    channels_last = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    assert_answer(client.infer(channels_last.transpose(0, 3, 1, 2)[::-2]), eager, list(range(18, -1, -2)))


def test_learns_everything_from_the_server(client, model):
    config = model.config
    assert client.labels() == tuple(generator.name for generator in config.generators)
    assert client.model == ServedModel(
        generators=config.generators,
        image_size=32,
        embed_dim=24,
        thresholds=(0.6, 0.8, 0.95),
        max_batch_size=8,
    )


def test_concurrent_single_requests_get_their_own_answers(server, images, eager):
    with TritonClient(server.grpc_url) as client, ThreadPoolExecutor(16) as pool:
        rows = [row for _ in range(4) for row in range(len(images))]
        answers = list(pool.map(lambda row: client.infer(images[row : row + 1]), rows))
    for row, answer in zip(rows, answers, strict=True):
        assert_answer(answer, eager, slice(row, row + 1))


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 32, 32), np.zeros((1, 3, 32, 32), np.int64), [[1]]])
def test_refuses_other_types(client, images):
    with pytest.raises(DTypeError, match=r"images: expected a uint8 tensor or array, got (torch.float32|int64|list)$"):
        client.infer(images)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 31), (0, 3, 32, 32)])
def test_refuses_other_shapes(client, shape):
    with pytest.raises(ShapeError, match=r"images: expected shape \(batch >= 1, 3, 32, 32\), got \("):
        client.infer(torch.zeros(shape, dtype=torch.uint8))


def test_refuses_other_options():
    with pytest.raises(RangeError, match="protocol: expected 'grpc' or 'http', got 'ftp'"):
        TritonClient("127.0.0.1:1", "ftp")
    with pytest.raises(RangeError, match="timeout: expected > 0, got 0"):
        TritonClient("127.0.0.1:1", timeout=0)


def test_may_be_closed_twice_and_says_whom_it_asks(client):
    assert repr(client) == f"TritonClient({client.url!r}, {client.protocol!r})"
    client.close()
    client.close()


@contextlib.contextmanager
def deaf_server(behaviour):
    """Listen on a port and run ``behaviour`` with each connection, instead of answering."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with contextlib.suppress(OSError):  # the listener is closed
                while True:
                    behaviour(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("behaviour", ["silent", "closing", "babbling", "absent"])
def test_a_server_that_does_not_answer_is_an_error_of_one_line(protocol, behaviour, images):
    kept = []
    behaviours = {
        "silent": kept.append,
        "closing": lambda connection: connection.close(),
        "babbling": lambda connection: (connection.sendall(b"who is there?\r\n\r\n"), connection.close()),
        "absent": lambda connection: None,
    }
    with deaf_server(behaviours[behaviour]) as url:
        if behaviour == "absent":
            with socket.create_server(("127.0.0.1", 0)) as gone:
                url = f"127.0.0.1:{gone.getsockname()[1]}"
        with (
            TritonClient(url, protocol, timeout=0.5) as client,
            pytest.raises(ServerError, match=f"^{url}: expected an answer to get_model_config, got .+") as error,
        ):
            client.infer(images)
    assert "\n" not in str(error.value)
