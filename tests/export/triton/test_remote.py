"""Remote attribution with a server that is stood in for: what is asked, and what is made of the answer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bmrl.errors import BMRLError, DTypeError, ImageError, RangeError, ServerUnavailableError
from bmrl.export.triton.remote import attribute_remotely, connect
from bmrl.generators import Generator
from bmrl.inference import Attribution, Limits

GENERATORS = (
    Generator(name="red", manipulation="EFS", architecture="GAN"),
    Generator(name="green", manipulation="FS", architecture="diffusion"),
    Generator(name="blue", manipulation="none", architecture="none"),
)


class Server:
    """Answers with the share of each color; keeps what it was asked; after ``dies_after`` batches it is gone."""

    def __init__(self, dies_after=None):
        self.model = SimpleNamespace(generators=GENERATORS, thresholds=(0.5, 0.9), image_size=16, max_batch_size=2)
        self.model.limits = Limits.of_threshold(0.5)
        self.asked = []
        self._dies_after = dies_after

    def infer(self, images):
        if self._dies_after is not None and len(self.asked) >= self._dies_after:
            raise ServerUnavailableError("server: expected an answer, got none")
        self.asked.append(images)
        means = images.float().mean(dim=(2, 3)).double()
        probabilities = means / means.sum(dim=1, keepdim=True)
        return SimpleNamespace(
            probabilities=probabilities.numpy(), score=probabilities.amax(dim=1, keepdim=True).numpy()
        )


def colored(*color):
    return Image.new("RGB", (20, 20), color)


def test_the_first_threshold_of_the_served_model_decides():
    answers = list(attribute_remotely(Server(), [colored(150, 50, 50), colored(255, 0, 0)]))
    assert [answer.threshold for answer in answers] == [0.5, 0.5]
    assert [answer.probability for answer in answers] == pytest.approx([0.6, 1.0])
    assert [answer.generator for answer in answers] == ["red", "red"]
    (strict,) = attribute_remotely(Server(), [colored(150, 50, 50)], threshold=0.61)
    assert (strict.seen, strict.generator, strict.threshold) == (False, None, 0.61)
    (lax,) = attribute_remotely(Server(), [colored(90, 80, 80)], threshold=0)
    assert (lax.seen, lax.threshold) == (True, 0.0)


def test_batches_are_the_servers_and_answers_stand_in_order(tmp_path):
    server = Server()
    (broken := tmp_path / "broken.png").write_text("no picture")
    (colors := tmp_path / "green.png").write_bytes(b"")
    colored(0, 200, 0).save(colors)
    sources = [colored(200, 0, 0), broken, colors, colored(0, 0, 200), broken, broken]
    answers = list(attribute_remotely(server, iter(sources)))
    assert [type(answer) for answer in answers] == [
        Attribution, ImageError, Attribution, Attribution, ImageError, ImageError
    ]  # fmt: skip
    assert [answer.generator for answer in answers if isinstance(answer, Attribution)] == ["red", "green", "blue"]
    assert answers[2].source == str(colors)
    assert answers[0].probabilities == pytest.approx({"red": 1.0, "green": 0.0, "blue": 0.0})
    assert [tuple(images.shape) for images in server.asked] == [(1, 3, 16, 16), (2, 3, 16, 16)]
    assert {str(images.dtype) for images in server.asked} == {"torch.uint8"}
    np.testing.assert_array_equal(server.asked[0][0, 0].numpy(), 200)


def test_what_is_wrong_is_said_at_the_call_and_before_the_server_is_asked():
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(RangeError, match=r"threshold: expected 0 .. 1"):
            attribute_remotely(None, [], threshold=threshold)
    with pytest.raises(DTypeError, match="threshold: expected a number"):
        attribute_remotely(None, [], threshold="0.5")
    with pytest.raises(DTypeError, match="images: expected a list of images or one path"):
        attribute_remotely(None, b"bytes")
    for server in (None, 3, b"h:1"):
        with pytest.raises(DTypeError, match="server: expected text"):
            connect(server)
    for server in ("", "h", "h:1:2", "h:123456", "http://h:1?x"):
        with pytest.raises(RangeError, match="server: expected host:port"):
            connect(server)


def test_what_was_answered_before_a_server_died_is_kept():
    stream = attribute_remotely(Server(dies_after=1), [colored(9, 9, 9)] * 5)
    assert isinstance(next(stream), Attribution)
    assert isinstance(next(stream), Attribution)
    with pytest.raises(BMRLError, match="expected an answer, got none"):
        next(stream)
