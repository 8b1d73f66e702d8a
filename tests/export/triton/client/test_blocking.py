from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bmrl.errors import DTypeError, ImageError, RangeError, ServerError, ShapeError
from bmrl.export import AsyncTritonClient, ServedModel, TritonClient
from bmrl.inference import Attribution, Limits
from bmrl.inference.attribution import format_table

pytestmark = pytest.mark.server


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture
def client(protocol, obedient_server):
    with TritonClient(getattr(obedient_server, f"{protocol}_url"), protocol, timeout=30) as client:
        yield client


def assert_answer(answer, eager, rows):
    for name, got, expected in zip(("probabilities", "embedding", "score"), answer, eager, strict=True):
        assert got.dtype == np.float32, name
        np.testing.assert_allclose(got, expected[rows].numpy(), rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_a_single_image_has_a_single_answer(client, images, eager, kind):
    answer = client.infer(images[5] if kind == "tensor" else images[5].numpy())
    assert answer.probabilities.shape == (4,)
    assert answer.embedding.shape == (24,)
    assert_answer(answer, eager, 5)


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
        limits=Limits.of_threshold(0.6),
        max_batch_size=8,
    )


def test_threads_that_share_a_client_get_their_own_answers(client, images, eager):
    with ThreadPoolExecutor(16) as pool:
        rows = [row for _ in range(4) for row in range(len(images))]
        answers = list(pool.map(lambda row: client.infer(images[row : row + 1]), rows))
    for row, answer in zip(rows, answers, strict=True):
        assert_answer(answer, eager, slice(row, row + 1))


def test_answers_may_be_written_to(client, images):
    for output in (*client.infer(images[:2]), *client.infer(images[0])):
        output += 1


def test_closing_ends_the_calls_of_other_threads(obedient_server, protocol):
    client = TritonClient(getattr(obedient_server, f"{protocol}_url"), protocol)
    assert client.labels()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.attribute, [b"wait 1 0.7 0.1 0.1 0.1"])
        time.sleep(0.3)
        client.close()
        with pytest.raises(ServerError, match="expected"):
            call.result(20)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 32, 32), np.zeros((1, 3, 32, 32), np.int64), [[1]]])
def test_refuses_other_types(client, images):
    with pytest.raises(DTypeError, match=r"images: expected a uint8 tensor or array, got (torch.float32|int64|list)$"):
        client.infer(images)


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 32), (1, 1, 32, 32), (1, 3, 32, 31), (0, 3, 32, 32)])
def test_refuses_other_shapes(client, shape):
    with pytest.raises(ShapeError, match=r"images: expected shape \(batch >= 1, 3, 32, 32\) or \(3, 32, 32\), got \("):
        client.infer(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("kind", [TritonClient, AsyncTritonClient])
def test_refuses_other_protocols(kind):
    with pytest.raises(RangeError, match="protocol: expected 'grpc' or 'http', got 'ftp'"):
        kind("127.0.0.1:1", "ftp")


def test_may_be_closed_twice_and_says_whom_it_asks(client):
    assert repr(client) == f"TritonClient({client.url!r}, {client.protocol!r})"
    client.close()
    client.close()


def test_is_of_no_use_when_closed(client, images):
    client.close()
    for use in (lambda: client.infer(images), lambda: client.attribute([b"x"]), client.labels):
        with pytest.raises(ServerError, match=f"^{client.url}: expected an open client, got one that is closed$"):
            use()


WORDS = [b"0.1 0.7 0.1 0.1", b"0.3 0.3 0.0 0.4"]


def test_attributes_encoded_images(ask, obedient_server):
    seen, unseen = ask(obedient_server, "attribute", WORDS)
    rest = {"source": "image 0", "threshold": 0.6, "architecture": "GAN", "manipulation": "EFS"}
    expected = pytest.approx({"photographs": 0.1, "StyleGAN3": 0.7, "DiffFace": 0.1, "Diffae: näïve, v2": 0.1})
    assert seen == Attribution(
        generator="StyleGAN3",
        verdict="seen",
        reason="probability 0.700 is not below the threshold 0.6",
        probability=seen.probability,
        score=seen.probability,
        seen=True,
        probabilities=expected,
        **rest,
    )
    assert seen.probability == pytest.approx(0.7)
    assert (unseen.source, unseen.generator, unseen.seen) == ("image 1", None, False)
    assert unseen.probability == pytest.approx(0.4)
    assert (unseen.architecture, unseen.manipulation) == ("diffusion", "AM")
    assert format_table([seen, unseen]).splitlines()[1:] == [
        "image 0  StyleGAN3  0.700        seen     EFS           GAN",
        "image 1  -          0.400        unseen   AM            diffusion",
    ]
    assert ask(obedient_server, "attribute", []) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"lie 0.1 0.7 0.1 0.1", r"expected index, .* of image 1 to fit .* \(1, 0.7, True, 0\), got 1, 0.7, False, 0"),
        (b"lie 0.3 0.3 0.0 0.4", r"expected index, .* of image 1 to fit .* \(3, 0.4, False, 2\), got 3, 0.4, True, 2"),
        (
            b"0.9 0.9 0.9 0.9",
            "expected .*, got probabilities: expected rows of probabilities >= 0 that sum to 1, got .*",
        ),
        (b"nan 0 0 1", "expected .*, got probabilities: expected finite numbers, got nan at .*"),
    ],
)
def test_an_attribution_that_contradicts_itself_is_an_error(ask, obedient_server, words, message):
    with pytest.raises(ServerError, match=rf"^127.0.0.1:\d+: {message}$"):
        ask(obedient_server, "attribute", [WORDS[0], words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"0.5 0.5", r"expected probabilities FP32 \(1, 4\), got FP32 \(1, 2\)"),
        (b"0.5", r"expected probabilities FP32 \(1, 4\), got FP32 \(1, 1\)"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(ask, obedient_server, words, message):
    with pytest.raises(ServerError, match=rf"^127.0.0.1:\d+: {message}$"):
        ask(obedient_server, "attribute", [words])


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (b"bytes", DTypeError, "images: expected a sequence of bytes, got bytes"),
        ("path", DTypeError, "images: expected a sequence of bytes, got str"),
        (None, DTypeError, "images: expected a sequence of bytes, got NoneType"),
        ([b"x", "path"], DTypeError, "images: expected a sequence of bytes, got str at 1"),
        ([b"x", b""], ImageError, "image 1: expected an image, got no bytes"),
    ],
)
def test_refuses_what_is_no_encoded_image(client, images, kind, message):
    with pytest.raises(kind, match=f"^{message}$"):
        client.attribute(images)
