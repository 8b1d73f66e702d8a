"""The gateway before the server's ports: which requests it refuses, and that the rest comes through unchanged."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import importlib.util
import json
import math
import os
import re
import resource
import signal
import socket
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from bmrl.errors import RequestRefusedError, ServerError
from bmrl.export import TritonClient, TritonServer
from bmrl.export.triton.client.failures import Deadline, server_error
from bmrl.export.triton.server import gateway
from bmrl.export.triton.server import supervisor as _supervisor
from bmrl.export.triton.server.supervisor import Supervisor

pytestmark = pytest.mark.slow

SERVER = pytest.mark.server
PIXELS = [0] * 3072
GOOD = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": PIXELS}


def checked(request, size=None):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return gateway.checked_inference(body, size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [2**62], "data": []}, "shape: expected at most as many elements as bytes"),
        ({"shape": [2**30], "data": []}, "shape: expected at most as many elements as bytes"),
        ({"shape": [2**32, 2**32], "data": []}, "shape: expected at most as many elements as bytes"),
        ({"shape": [2**64], "parameters": {"binary_data_size": 8}}, "shape: expected at most as many elements"),
        ({"shape": [1] * 101}, "shape: expected at most as many elements as bytes"),
        ({"shape": [-1]}, "shape: expected a list of integers >= 0"),
        ({"shape": [1.0]}, "shape: expected a list of integers >= 0"),
        ({"shape": [True]}, "shape: expected a list of integers >= 0"),
        ({"shape": 1}, "shape: expected a list of integers >= 0"),
        ({"shape": None}, "shape: expected a list of integers >= 0"),
        ({"data": [256] * 3072}, "data: expected integers from 0 to 255"),
        ({"data": [[-1]]}, "data: expected integers from 0 to 255"),
        ({"data": [0.5]}, "data: expected integers from 0 to 255"),
        ({"data": [True]}, "data: expected integers from 0 to 255"),
    ],
)
def test_a_tensor_that_is_not_there_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        checked({"inputs": [GOOD, GOOD | change]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected JSON, got something else"),
        (b"\xff\xfe", "expected JSON, got something else"),
        (b"null", "inputs: expected a list of tensors"),
        (b"[]", "inputs: expected a list of tensors"),
        (b"{}", "inputs: expected a list of tensors"),
        (b'{"inputs": 7}', "inputs: expected a list of tensors"),
        (b'{"inputs": [7]}', "shape: expected a list"),
        (b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b'{"inputs": [{"shape": [' + b"9" * 6000 + b"]}]}", "expected JSON, got something else"),
        (b'{"inputs": [{"shape": [0], "x": NaN}]}', "not JSON compliant"),
        (b" " * (gateway.MAX_HEADER + 1), "expected at most 8388608 bytes of JSON, got 8388609"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked(body)


@pytest.mark.parametrize("size", ["-1", "+1", "x", "", " 3", "1" * 30, "100000"])
def test_a_header_size_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=r"^Inference-Header-Content-Length: expected 0 to \d+, got '"):
        checked({"inputs": [GOOD]}, size)


def test_as_many_elements_as_bytes_and_not_one_more():
    header = b'{"inputs":[{"shape":[%d]}]}'
    size = len(header % 10)  # two digits, as below
    assert checked(header % size)[0] == header % size
    with pytest.raises(ValueError, match=rf"^shape: expected at most .* \({size}\), got more$"):
        checked(header % (size + 1))


def test_the_size_of_a_region_is_compared_by_the_server():
    tensor = {"shape": [8, 3, 224, 224], "datatype": "UINT8", "parameters": {"shared_memory_region": "mine"}}
    assert json.loads(checked({"inputs": [tensor]})[0]) == {"inputs": [tensor]}


def test_of_two_shapes_the_server_sees_the_one_that_was_checked():
    """Triton takes the first of two entries with one name, Python the last."""
    body, size = checked(b'{"inputs": [{"shape": [4611686018427387904], "shape": [0], "data": []}]}')
    assert (json.loads(body), size) == ({"inputs": [{"shape": [0], "data": []}]}, None)
    assert body.count(b"shape") == 1
    with pytest.raises(ValueError, match=r"^shape: expected at most"):
        checked(b'{"inputs": [{"shape": [0], "shape": [4611686018427387904], "data": []}]}')


TENSORS = st.builds(
    lambda shape, more: {"shape": shape} | more,
    st.lists(st.integers(0, 4), max_size=4).filter(lambda shape: math.prod(shape) <= 20),
    st.dictionaries(st.sampled_from(["name", "data", "parameters"]), st.text(max_size=5) | st.integers(), max_size=3),
)


@given(st.lists(TENSORS, max_size=4), st.binary(max_size=40))
def test_what_passes_keeps_its_meaning(tensors, pixels):
    request = {"id": "ä\n", "inputs": tensors}
    header = json.dumps(request, indent=3).encode()
    body, size = checked(header + pixels, str(len(header)))
    assert json.loads(body[:size]) == request
    assert body[size:] == pixels


NUMBERS = st.integers(0, 2**63 - 1)


@given(st.lists(st.binary(max_size=200), max_size=4), st.text(max_size=300), st.lists(NUMBERS, max_size=50), NUMBERS)
def test_counts_what_is_beside_the_tensors(tensors, name, shape, version):
    """Protobuf's own encoder is the oracle."""
    request = service_pb2.ModelInferRequest(model_name=name)
    request.inputs.add(name=name, shape=shape).contents.uint64_contents.extend(shape)
    request.parameters["x"].int64_param = version
    request.parameters["y"].double_param = 1.5
    without = len(request.SerializeToString())
    request.raw_input_contents.extend(tensors)
    message = request.SerializeToString()
    framing = len(message) - without - sum(map(len, tensors))
    assert gateway.bytes_without_tensors(message) == without + framing


def test_numbers_of_every_width_are_passed_over():
    """Fields of 8 and 4 bytes, and a number of ten bytes, before three bytes of a tensor."""
    extra = b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x18" + b"\xff" * 9 + b"\x01"
    assert gateway.bytes_without_tensors(extra + b"\x3a\x03abc") == len(extra) + 2


@given(st.binary(max_size=60))
def test_random_bytes_are_counted_or_refused(message):
    with contextlib.suppress(ValueError):
        assert 0 <= gateway.bytes_without_tensors(message) <= len(message)


@pytest.mark.parametrize("message", [b"\x08", b"\x0a\x05ab", b"\x09\0", b"\x0b", b"\x0c", b"\xff" * 11])
def test_part_of_a_message_is_refused(message):
    with pytest.raises(ValueError, match=r"^request: expected a message of protobuf, got"):
        gateway.bytes_without_tensors(message)


def test_needs_no_bmrl(tmp_path):
    assert not re.search(r"^ *(from|import) bmrl", Path(gateway.__file__).read_text(), re.MULTILINE)
    spec = importlib.util.spec_from_file_location("alone", gateway.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


# With a real server


def post(server, body, path="/v2/models/bmrl/infer", **headers):
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def memory(server):
    """Return the bytes that the server and its gateway hold, the models' processes apart."""
    total = 0
    for pid in (server.pid, server._process._gateway.pid):
        (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        total += 1024 * int(line.split()[1])
    return total


KILLS = json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2**62], "data": []}]}).encode()


@SERVER
def test_one_request_over_http_neither_ends_the_server_nor_fills_it(server, images, eager):
    pid, before = server.pid, memory(server)
    assert post(server, KILLS) == (
        400,
        {"error": f"shape: expected at most as many elements as bytes in the request ({len(KILLS)}), got more"},
    )
    assert post(server, KILLS.replace(str(2**62).encode(), str(2**30).encode()))[0] == 400
    packed = gzip.compress(bytes(300 * 2**20), 1)
    for encoding in ("gzip", "deflate", "br", "GZIP", "identity, gzip"):
        assert post(server, packed, Content_Encoding=encoding)[0] == 415
    assert post(server, bytes(40 * 2**20))[0] == 413
    nested = b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert post(server, nested)[0] == 400
    status, answer = post(server, json.dumps({"inputs": [GOOD]}).encode(), Content_Encoding="identity")
    assert (status, answer["outputs"][0]["name"]) == (200, "probabilities")
    assert server.pid == pid
    server.check_alive()
    server.check_answer()
    assert memory(server) - before < 120 * 2**20


def message(*pixels, **tensor):
    request = service_pb2.ModelInferRequest(model_name="bmrl", raw_input_contents=pixels)
    request.inputs.add(name="images", datatype="UINT8", **tensor)
    return request.SerializeToString()


@SERVER
@pytest.mark.parametrize(
    ("make", "compression", "code"),
    [
        (lambda: message(shape=[1] * 8_400_000), None, "INVALID_ARGUMENT"),
        (lambda: message(shape=[2**62]), None, "INVALID_ARGUMENT"),
        (lambda: message(bytes(300 * 2**20)), grpc.Compression.Gzip, "UNIMPLEMENTED"),
        (lambda: message(bytes(40 * 2**20)), None, "RESOURCE_EXHAUSTED"),
    ],
    ids=["dimensions", "huge", "compressed", "large"],
)
def test_one_request_over_grpc_neither_ends_the_server_nor_fills_it(server, make, compression, code):
    pid, before = server.pid, memory(server)
    with grpc.insecure_channel(server.grpc_url, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(make(), timeout=60, compression=compression)
    assert error.value.code().name == code
    assert server.pid == pid
    server.check_answer()
    assert memory(server) - before < 120 * 2**20


@SERVER
def test_what_is_switched_off_is_refused_in_a_line(server):
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        for call, what in (
            (lambda: client.register_system_shared_memory("x", "/x", 1), "shared memory"),
            (client.get_cuda_shared_memory_status, "shared memory"),
            (client.get_model_repository_index, "models"),
            (lambda: client.load_model("bmrl"), "models"),
        ):
            with pytest.raises(InferenceServerException, match=f"got a request for {what}, which is not switched on"):
                call()
        for call in (client.get_log_settings, client.get_trace_settings):
            with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
                call()
        assert client.is_server_ready()
        assert client.get_model_config("bmrl").config.name == "bmrl"


@SERVER
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_client_that_is_refused_is_told_so_once(server, protocol):
    """Not switched on, and too large: asking again would not help."""
    url = getattr(server, f"{protocol}_url")
    with (
        TritonClient(url, protocol, shared_memory=True) as client,
        pytest.raises(RequestRefusedError, match=r"a request for shared memory, which is not switched on here$"),
    ):
        client.infer(np.zeros((1, 3, 32, 32), np.uint8))
    with (
        TritonClient(url, protocol) as client,
        pytest.raises(RequestRefusedError, match=r"got \[(StatusCode.RESOURCE_EXHAUSTED|413)\] .*\d{7}"),
    ):
        client.attribute([bytes(9 * 2**20)])


@pytest.mark.parametrize("status", ["StatusCode.UNIMPLEMENTED", "415", "403", "404"])
def test_what_the_gateway_answers_is_a_refusal(status):
    error = InferenceServerException("no", status=status)
    connection = types.SimpleNamespace(url="here:1", lost=ConnectionError)
    assert isinstance(server_error(connection, "infer", Deadline(1), error), RequestRefusedError)


@SERVER
def test_only_this_user_reaches_the_server_past_its_gateway(server):
    scratch = server._process._scratch.path
    assert scratch.stat().st_mode & 0o077 == 0
    assert {path.name for path in scratch.iterdir() if path.is_socket()} == {"http", "grpc:0", "metrics"}


@SERVER
def test_a_lost_gateway_is_noticed_and_restored(repository, images, eager, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TritonServer(repository) as server:
        os.kill(server._process._gateway.pid, signal.SIGKILL)
        server._process._gateway.wait(20)
        with pytest.raises(ServerError, match="got exit code -9 of the gateway"):
            server.check_alive()
        server.restart()
        with TritonClient(server.grpc_url) as client:
            np.testing.assert_allclose(client.infer(images[:2])[0], eager[0][:2].numpy(), rtol=0, atol=1e-4)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(25)
def test_a_server_that_does_not_say_whom_it_answers_is_not_waited_for_as_long_as_a_model(strange_server, monkeypatch):
    monkeypatch.setattr(_supervisor, "COUNTING", 0.1)
    with strange_server(lambda connection: None) as (url, _):
        server = types.SimpleNamespace(grpc_url=url)
        assert Supervisor(server, probe_interval=1.0, patience=30.0, max_restores=1)._count() == {}


@SERVER
def test_a_gateway_that_hangs_is_noticed_and_restored(repository):
    with TritonServer(repository) as server:
        pid, gateway = server.pid, server._process._gateway.pid
        with ThreadPoolExecutor(1) as pool:
            supervision = pool.submit(server.supervise, probe_interval=0.2, patience=1.0)
            try:
                os.kill(gateway, signal.SIGSTOP)
                end = time.monotonic() + 60
                while server._process is None or server._process._gateway.pid == gateway:
                    assert time.monotonic() < end
                    time.sleep(0.1)
                with TritonClient(server._url("grpc"), timeout=60, retries=30) as client:
                    assert client.labels()
            finally:
                server.terminate()
                supervision.result(60)
        assert not Path(f"/proc/{pid}").exists()
        assert not Path(f"/proc/{gateway}").exists()


@SERVER
def test_a_thousand_idle_connections_keep_nobody_out(repository, images, eager):
    """Where a process may open 1,024 files until it asks for more; some of them have sent half a request.

    gRPC itself ends those that never spoke, after more than the clients' timeout here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this process may not open 4,096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with TritonServer(repository) as server, contextlib.ExitStack() as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            for number in range(1200):
                url = (server.http_url, server.grpc_url)[number % 2]
                connection = stack.enter_context(socket.create_connection(url.split(":"), timeout=30))
                if number % 4 == 0:
                    connection.sendall(b"POST /v2/models/bmrl/infer HTTP/1.1\r\nContent-Length: 9\r\n")
            for protocol, url in (("http", server.http_url), ("grpc", server.grpc_url)):
                with TritonClient(url, protocol, timeout=15) as client:
                    np.testing.assert_allclose(client.infer(images[:1])[0], eager[0][:1].numpy(), rtol=0, atol=1e-4)
            server.check_alive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
