"""The ensemble on a real server: an image file's bytes in, its attribution out, the same as a local one."""

from __future__ import annotations

import io
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tritonclient.utils import InferenceServerException

from bmrl import Attributor
from bmrl.errors import RepositoryError, RequestRefusedError, ServerError
from bmrl.export import Artifact, TritonClient, TritonServer, write_triton_repository
from bmrl.export.standalone.triton_decide import decide
from bmrl.images import read_image
from bmrl.inference.limits import VERDICTS, Limits

pytestmark = [pytest.mark.slow, pytest.mark.server]

MAX_PIXELS, MAX_BYTES = 10_000, 40_000


@pytest.fixture(scope="module")
def folder(repository, tmp_path_factory):
    return write_triton_repository(
        Artifact(repository / "bmrl" / "1" / "model.pt"),
        tmp_path_factory.mktemp("ensemble") / "models",
        ensemble=True,
        max_batch_size=8,
        num_threads=1,
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
    )


@pytest.fixture(scope="module")
def ensemble(folder):
    with TritonServer(folder) as server, TritonClient(server.grpc_url) as client:
        yield server, client


def encoded(size, format, mode="RGB", **options):
    rng = np.random.default_rng(sum(size))
    picture = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


IMAGES = {
    "png": encoded((32, 32), "PNG"),
    "one pixel": encoded((1, 1), "PNG"),
    "wide jpeg": encoded((90, 33), "JPEG"),
    "tall webp": encoded((20, 70), "WEBP", lossless=True),
    "gray": encoded((40, 40), "JPEG", "L"),
    "transparent": encoded((50, 40), "PNG", "RGBA"),
    "palette": encoded((31, 32), "PNG", "P"),
}


def test_attributes_as_the_attributor_does(ensemble, model):
    _, client = ensemble
    served = client.attribute(list(IMAGES.values()))
    local = Attributor(model)(list(IMAGES.values()))
    for one, other in zip(served, local, strict=True):
        assert (one.generator, one.seen) == (other.generator, other.seen)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


@pytest.mark.parametrize("names", [["index"], ["seen"], ["probabilities"], ["embedding", "index"], ["probability"],
                                    ["verdict", "score"]])  # fmt: skip
def test_each_output_can_be_asked_for_alone(ensemble, model, names):
    server, _ = ensemble
    data = IMAGES["wide jpeg"]
    request = tritonclient.grpc.InferInput("image", [len(data)], "UINT8")
    request.set_data_from_numpy(np.frombuffer(data, np.uint8))
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as connection:
        wanted = [tritonclient.grpc.InferRequestedOutput(name) for name in names]
        answer = connection.infer("bmrl_attribute", [request], outputs=wanted)
    with torch.no_grad():
        right = model(read_image(data, 32)[None])
    best, index = right.probabilities.max(1, keepdim=True)
    expected = {
        "index": index.int(),
        "probability": best,
        "seen": best >= 0.6,
        "probabilities": right.probabilities,
        "embedding": right.embedding,
        "verdict": torch.where(best >= 0.6, 0, 2).int(),
        "score": best,
    }
    assert sorted(output.name for output in answer.get_response().outputs) == sorted(names)
    for name in names:
        right = expected[name].numpy()
        assert answer.as_numpy(name).dtype == right.dtype
        np.testing.assert_allclose(answer.as_numpy(name), right, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"junk", "image: expected an image (JPEG, PNG, WebP), got other data that starts with b'junk'"),
        (encoded((8, 8), "BMP"), "image: expected an image (JPEG, PNG, WebP), got other data that starts with b'BM"),
        (IMAGES["png"][:200], "image: expected a whole, valid image, got: "),
        (encoded((101, 100), "PNG", "1"), "image: expected at most 10000 pixels, got 101 x 100"),
        (b"\xff\xd8\xff" + bytes(MAX_BYTES), f"image: expected at most {MAX_BYTES} bytes, got more"),
    ],
    ids=["junk", "another format", "truncated", "too many pixels", "too many bytes"],
)
def test_refuses_what_is_not_safe_to_decode_and_goes_on(ensemble, model, data, message):
    _, client = ensemble
    with pytest.raises(RequestRefusedError) as error:
        client.attribute([data])
    assert message in str(error.value)
    (good,) = client.attribute([IMAGES["png"]])
    (local,) = Attributor(model)([IMAGES["png"]])
    assert good.probabilities == pytest.approx(local.probabilities, abs=1e-4)


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8, 0.95])
def test_decides_about_the_nearest_float32_as_the_attributor_does(threshold):
    nearest = np.float32(threshold)
    rows = [[value, 1 - value] for value in (np.nextafter(nearest, np.float32(0)), nearest, np.float32(1))]
    probabilities = torch.tensor(np.array(rows, np.float32))
    _, _, verdict = decide(probabilities, probabilities[:, :1], Limits.of_threshold(threshold).to_dict())
    assert (verdict == 0).flatten().tolist() == [float(row[0]) >= threshold for row in rows]
    assert verdict.unique().tolist() == [0, 2]


@given(st.lists(st.tuples(st.floats(-5, 5, width=32), st.floats(0.5, 1, width=32)), min_size=1, max_size=8),
       st.floats(-4, 4), st.floats(0, 3), st.floats(0.5, 1))  # fmt: skip
def test_verdicts_are_those_of_the_library(rows, unseen, gap, probability):
    limits = Limits(unseen=unseen, seen=unseen + gap, probability=probability, score="energy")
    scores, best = (torch.tensor(column, dtype=torch.float32) for column in zip(*rows, strict=True))
    _, _, verdict = decide(torch.stack((best, 1 - best), 1), scores[:, None], limits.to_dict())
    assert [VERDICTS[place] for place in verdict.flatten().tolist()] == limits.verdicts(scores, best)


def test_a_dead_decoder_is_not_taken_for_ready(folder):
    with TritonServer(folder) as server:
        server.check_answer()
        os.kill(decoder(server.pid), signal.SIGKILL)
        with pytest.raises(ServerError, match=r"expected an answer to attribute, got"):
            server.check_answer(5)
        with pytest.raises(ServerError, match=r"expected its models' processes to run"):
            server.check_alive()


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        ("bmrl_decode", "dims: 32", "dims: 64", "bmrl_decode: output: expected .*, got .*dims: 64"),
        ("bmrl_decide", r"unseen\": 0.6", r"unseen\": 0.5", "bmrl_decide: parameters.limits: expected .* 0.6, .*"),
        ("bmrl_attribute", 'value: "pixels"', 'value: "pixel"', "bmrl_attribute: ensemble_scheduling: .*pixel"),
        (
            "bmrl_decode",
            '"40000"',
            '"1e9"',
            r"parameters.max_bytes: expected an integer from 1 to 2147483647, got 1",
        ),
        ("bmrl_decode", '"40000"', '"2147483648"', r"parameters.max_bytes: expected an integer from 1 to"),
        (
            "bmrl_decode",
            '"40000"',
            f'"{"9" * 6000}"',
            r"max_bytes: expected an integer .*, got 9{300}\.\.\.$",
        ),
        (
            "bmrl_decode",
            '"10000"',
            '"-1"',
            r"parameters.max_pixels: expected an integer from 1 .*, got -1",
        ),
        ("bmrl_decode", '"max_pixels"', '"pixels"', r"parameters.max_pixels: expected an integer .*, got none"),
        ("bmrl_attribute", "TYPE_BOOL", "TYPE_INT8", "bmrl_attribute: output: expected .*TYPE_BOOL.*, got .*TYPE_INT8"),
    ],
)
def test_an_ensemble_that_does_not_fit_is_not_served(folder, tmp_path, part, old, new, message):
    copy = shutil.copytree(folder, tmp_path / "models")
    config = copy / part / "config.pbtxt"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    with pytest.raises(RepositoryError, match=message) as error, TritonServer(copy):
        pass
    assert "\n" not in str(error.value)


def decoder(pid):
    """Return the process of the server that runs ``bmrl_decode``."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            if b"bmrl_decode" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("no process of bmrl_decode")


def test_an_empty_vector_is_refused(ensemble):
    server, _ = ensemble
    request = tritonclient.grpc.InferInput("image", [0], "UINT8")
    request.set_data_from_numpy(np.zeros(0, np.uint8))
    with (
        tritonclient.grpc.InferenceServerClient(server.grpc_url) as connection,
        pytest.raises(InferenceServerException),
    ):
        connection.infer("bmrl_attribute", [request])


def test_an_ensemble_is_replaced_and_a_foreign_model_beside_it_is_not(folder, repository, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "models")
    write_triton_repository(Artifact(repository / "bmrl" / "1" / "model.pt"), copy)
    assert [entry.name for entry in copy.iterdir()] == ["bmrl"]
    (copy / "thesis").mkdir()
    with pytest.raises(RepositoryError, match="got 'thesis' in it"):
        write_triton_repository(Artifact(repository / "bmrl" / "1" / "model.pt"), copy)
