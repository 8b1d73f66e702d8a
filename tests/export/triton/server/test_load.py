"""A real server under many clients at once, and under 2,000 requests that mean it no good."""

from __future__ import annotations

import gc
import io
import json
import random
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from bmrl import Attributor
from bmrl.errors import BMRLError
from bmrl.export import Artifact, TritonClient, TritonServer, write_triton_repository
from bmrl.images import read_image

pytestmark = [pytest.mark.slow, pytest.mark.server]

NUM_CLIENTS, SECONDS = 64, 20
NUM_REQUESTS = 2000
MAX_PIXELS, MAX_BYTES = 1_000_000, 2**20
GROWTH = 8 * 2**20  # bytes in 1,000 requests; 3 MiB were the most in six such rounds


@pytest.fixture(scope="module")
def loaded(repository, tmp_path_factory):
    file = Artifact(repository / "bmrl" / "1" / "model.pt")
    folder = tmp_path_factory.mktemp("load") / "models"
    limits = {"max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES}  # small: freed buffers of megabytes look like growth
    write_triton_repository(file, folder, ensemble=True, num_threads=1, **limits)
    with TritonServer(folder) as server:
        yield server


def test_64_clients_at_once_get_all_their_answers(loaded, images, eager):
    expected = eager[0].numpy()
    end = time.monotonic() + SECONDS
    start = threading.Barrier(NUM_CLIENTS, timeout=60)

    def ask(number):
        """Return the numbers of right and of wrong answers; an error of the server is raised."""
        index = number % len(images)
        image, counts = images[index].numpy(), [0, 0]
        with TritonClient(loaded.grpc_url, timeout=30, retries=0) as client:
            start.wait()
            while time.monotonic() < end:
                right = np.abs(client.infer(image).probabilities - expected[index]).max() < 1e-4
                counts[not right] += 1
        return counts

    with tritonclient.grpc.InferenceServerClient(loaded.grpc_url) as connection:
        before = statistics(connection)
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            counts = list(pool.map(ask, range(NUM_CLIENTS)))
        after = statistics(connection)
    right, wrong = (sum(column) for column in zip(*counts, strict=True))
    assert wrong == 0
    assert min(count for count, _ in counts) > 0
    assert after.inference_stats.fail.count == before.inference_stats.fail.count
    assert after.inference_count - before.inference_count == right  # none was lost, or answered twice
    assert after.execution_count - before.execution_count < right / 2  # they were run in batches
    assert max(batch.batch_size for batch in after.batch_stats) > 8


def statistics(connection):
    (model,) = connection.get_inference_statistics("bmrl").model_stats
    return model


# --- requests that mean no good ---------------------------------------------------------------------------------------


def png(width, height, rows=None, *, extra=b""):
    """Return a PNG file of 1-bit gray whose header says ``width`` times ``height``, no matter what ``rows`` hold."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height) if rows is None else rows
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb():
    """Return a PNG file with a comment of a few kilobytes that unpacks to 64 MB."""
    data = b"Comment\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return png(8, 8, extra=chunk)


def picture(rng, size, form, mode="RGB"):
    values = np.frombuffer(rng.randbytes(size[0] * size[1] * 3), np.uint8).reshape(size[1], size[0], 3)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, form)
    return file.getvalue()


class Fuzzer:
    """Makes requests, each from a number alone; a request returns ``"refused"`` or ``"right"``, or raises.

    Args:
        server: the running server.
        model: what it serves.
        images: good images, for requests that must be answered.
        eager: what the model makes of them.
    """

    def __init__(self, server, model, images, eager):
        self.server = server
        self.images, self.eager = images.numpy(), eager[0].numpy()
        self.attributor = Attributor(model)
        self.grpc = tritonclient.grpc.InferenceServerClient(server.grpc_url)
        self.channel = grpc.insecure_channel(server.grpc_url)
        self.kinds = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("ask_")]
        self.expected = {}

    def close(self):
        self.grpc.close()
        self.channel.close()

    def __call__(self, number):
        kind = self.kinds[number % len(self.kinds)]
        return kind.__name__, kind(random.Random(number))

    def check_infer(self, arrays, model="bmrl", **options):
        """Send arrays by name over gRPC; only a good image may be answered, and only rightly."""
        inputs = []
        for name, array in arrays.items():
            inputs.append(tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        try:
            answer = self.grpc.infer(model, inputs, client_timeout=30, **options)
        except InferenceServerException as error:
            return self.check_refusal(error)
        return answer.as_numpy("probabilities")

    @staticmethod
    def check_refusal(error):
        assert error.status() in ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND", "StatusCode.UNIMPLEMENTED"), (
            error
        )
        return "refused"

    def check_file(self, data):
        """Send a file's bytes to the ensemble; what it answers must be what the Attributor says."""
        answer = self.check_infer({"image": np.frombuffer(data, np.uint8)}, "bmrl_attribute")
        if isinstance(answer, str):
            with pytest.raises(BMRLError):
                read_image(data, 32, formats=("JPEG", "PNG", "WebP"), max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)
            return answer
        if data not in self.expected:
            (found,) = self.attributor([data])  # raises if it must not have been answered
            self.expected[data] = [*found.probabilities.values()]
        np.testing.assert_allclose(answer[0], self.expected[data], rtol=0, atol=1e-4)
        return "right"

    def check_http(self, path, data, headers, method="POST"):
        request = urllib.request.Request(f"http://{self.server.http_url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            assert "Failed to process" not in text, text  # an exception in a model; the server's own errors may be 500
            return "refused"

    # each of these is asked as often as every other one

    def ask_good_images(self, rng):
        chosen = rng.choices(range(len(self.images)), k=rng.randint(1, 8))
        answer = self.check_infer({"images": self.images[chosen]})
        np.testing.assert_allclose(answer, self.eager[chosen], rtol=0, atol=1e-4)
        return "right"

    def ask_a_good_file(self, rng):
        size = rng.randint(1, 90), rng.randint(1, 90)
        mode = rng.choice(["RGB", "L", "P", "RGBA"])
        form = rng.choice(["PNG", "WEBP"] if mode in ("P", "RGBA") else ["PNG", "WEBP", "JPEG"])
        result = self.check_file(picture(rng, size, form, mode))
        assert result == "right"
        return result

    def ask_a_shape(self, rng):
        shape = [rng.choice([0, 1, 2, 3, 31, 32, 33]) for _ in range(rng.randint(1, 5))]
        if shape[1:] == [3, 32, 32]:
            shape[1] = 4
        return self.expect_refusal(self.check_infer({"images": np.zeros(shape, np.uint8)}))

    def ask_a_batch_that_is_too_large(self, rng):
        return self.expect_refusal(self.check_infer({"images": np.zeros((rng.randint(65, 200), 3, 32, 32), np.uint8)}))

    def ask_a_dtype(self, rng):
        kind = rng.choice([np.float32, np.float64, np.float16, np.int8, np.int64, np.bool_, np.uint16])
        values = np.zeros((1, 3, 32, 32), kind)
        if np.issubdtype(kind, np.floating):
            values.fill(rng.choice([np.nan, np.inf, 0.5]))
        return self.expect_refusal(self.check_infer({"images": values}))

    def ask_strings(self, rng):
        return self.expect_refusal(self.check_infer({"images": np.array([rng.randbytes(9)] * 3, np.object_)}))

    def ask_other_names(self, rng):
        name = rng.choice(["image", "", "INPUT__0", "\0", "ümläut", "../config.pbtxt", "x" * 5000])
        arrays = {name: self.images[:1]}
        if rng.random() < 0.5:
            arrays["images"] = self.images[:1]
        return self.expect_refusal(self.check_infer(arrays))

    def ask_another_model(self, rng):
        model = rng.choice(["", "brml", "../bmrl", "bmrl/1", "%2e%2e/bmrl", "bmrl\n", "y" * 3000])
        return self.expect_refusal(self.check_infer({"images": self.images[:1]}, model))

    def ask_another_version_or_output(self, rng):
        outputs = [tritonclient.grpc.InferRequestedOutput(rng.choice(["logits", "", "probabilities "]))]
        options = rng.choice([{"model_version": "7"}, {"model_version": "-1"}, {"outputs": outputs}])
        return self.expect_refusal(self.check_infer({"images": self.images[:1]}, **options))

    def ask_random_bytes_of_a_file(self, rng):
        head = rng.choice([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8 ", b"GIF89a", b"BM"])
        return self.expect_refusal(self.check_file(head + rng.randbytes(rng.randint(0 if head else 1, 3000))))

    def ask_a_truncated_file(self, rng):
        data = picture(rng, (40, 40), rng.choice(["PNG", "JPEG", "WEBP"]))
        return self.check_file(data[: rng.randint(1, len(data) - 1)])

    def ask_a_damaged_file(self, rng):
        data = bytearray(picture(rng, (40, 40), rng.choice(["PNG", "JPEG", "WEBP"])))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return self.check_file(bytes(data))

    def ask_a_bomb(self, rng):
        bombs = {
            "pixels": lambda: png(60_000, 60_000, zlib.compress(bytes(2**20), 9)),
            "more than the header says": lambda: png(16, 16, zlib.compress(bytes(8 * 2**20), 9)),
            "text": text_bomb,
            "bytes": lambda: png(8, 8) + bytes(MAX_BYTES),
        }
        kind = rng.choice([*bombs])
        data = bombs[kind]()
        return self.check_file(data) if kind != "pixels" else self.expect_refusal(self.check_file(data))

    def ask_an_extreme_size(self, rng):
        return self.check_file(png(*rng.choice([(1, 1), (1, 20_000), (20_000, 1), (1_000, 1_000), (20_000, 20_000)])))

    def ask_another_format(self, rng):
        form = rng.choice(["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF"])
        return self.expect_refusal(self.check_file(picture(rng, (20, 20), form)))

    def ask_a_file_with_another_shape(self, rng):
        data = np.frombuffer(picture(rng, (20, 20), "PNG"), np.uint8)
        shape = rng.choice([(1, -1), (-1, 1), (1, 1, -1)])
        return self.expect_refusal(self.check_infer({"image": data.reshape(shape)}, "bmrl_attribute"))

    def ask_http_with_random_bytes(self, rng):
        model = rng.choice(["bmrl", "bmrl_attribute", "bmrl_decode"])
        headers = {"Content-Type": rng.choice(["application/json", "application/octet-stream", "image/png", "\t"])}
        if rng.random() < 0.5:
            headers["Inference-Header-Content-Length"] = rng.choice(["-1", "99999999999999999999", "7", "a", "0x10"])
        return self.expect_refusal(self.check_http(f"/v2/models/{model}/infer", rng.randbytes(500), headers))

    def ask_http_with_json(self, rng):
        good = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": [0] * 3072}
        change = rng.choice(
            [
                {"shape": [1, 3, 32]},
                {"shape": [-1, 3, 32, 32]},
                {"shape": [2**62, 3, 32, 32]},
                {"shape": "1"},
                {"datatype": "FP99"},
                {"data": [0] * 3071},
                {"data": [256] * 3072},
                {"data": [float("nan")] * 3072},
                {"data": ["0"] * 3072},
                {"data": None},
                {"name": 7},
                {"parameters": {"shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 3072}},
                {"parameters": {"binary_data_size": 2**60}},
            ]
        )
        body = json.dumps({"inputs": [good | change]}).encode()
        answer = self.check_http("/v2/models/bmrl/infer", body, {"Content-Type": "application/json"})
        return self.expect_refusal(answer)

    def ask_http_with_nested_json(self, rng):
        depth = rng.choice([10, 1000, 100_000])
        body = b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"
        return self.expect_refusal(self.check_http("/v2/models/bmrl/infer", body, {"Content-Type": "application/json"}))

    def ask_a_path(self, rng):
        path = rng.choice(
            [
                "/v2/models/..%2f..%2f..%2fetc%2fpasswd/infer",
                "/v2/models/%2e%2e/config",
                "/v2/models/bmrl/versions/..%2f1/infer",
                "/../../etc/passwd",
                "/v2/models/bmrl/" + "a" * 4000,
                "/v2/repository/models/x/load",
                "/v2/systemsharedmemory/region/..%2f..%2fx/register",
            ]
        )
        return self.expect_refusal(self.check_http(path, b"{}", {}, rng.choice(["GET", "POST", "PUT", "DELETE"])))

    def ask_grpc_with_random_bytes(self, rng):
        call = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{rng.choice(['ModelInfer', 'ModelConfig', 'Nothing'])}",
            request_serializer=None,
            response_deserializer=None,
        )
        with pytest.raises(grpc.RpcError) as error:
            call(rng.randbytes(rng.randint(1, 2000)), timeout=30)
        assert error.value.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        return "refused"

    @staticmethod
    def expect_refusal(result):
        assert isinstance(result, str), f"expected a refusal, got an answer {result!r}"
        assert result == "refused"
        return result


def memory(pid):
    """Return the bytes that a process and its children hold, files apart."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    total = 0
    for one in (pid, *children):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):  # not what is mapped from files, which others may share
                total += 1024 * int(line.split()[1])
    return total


def test_each_of_2000_bad_requests_is_refused_or_answered_rightly(loaded, model, images, eager):
    """Twice the same thousand, so that what grows the second time is what the server does not release."""
    fuzzer = Fuzzer(loaded, model, images, eager)
    sizes, outcomes = [], []
    try:
        for _ in range(2):
            outcomes += [fuzzer(number) for number in range(NUM_REQUESTS // 2)]
            sizes.append(memory(loaded.pid))
    finally:
        fuzzer.close()
        gc.collect()
    assert len(outcomes) == NUM_REQUESTS
    asked = {name for name, _ in outcomes}
    assert len(asked) == len(fuzzer.kinds) > 20
    assert {name for name, result in outcomes if result == "right"} >= {"ask_good_images", "ask_a_good_file"}
    assert outcomes[: NUM_REQUESTS // 2] == outcomes[NUM_REQUESTS // 2 :]
    assert sizes[1] - sizes[0] < GROWTH, sizes
    loaded.check_alive()
    loaded.check_answer()
    with TritonClient(loaded.grpc_url) as client:
        np.testing.assert_allclose(client.infer(images).probabilities, eager[0].numpy(), rtol=0, atol=1e-4)
