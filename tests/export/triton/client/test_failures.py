"""What both clients make of servers and networks that fail, over both protocols."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import struct
import time

import numpy as np
import pytest
import tritonclient.grpc

from bmrl.errors import (
    BMRLError,
    DTypeError,
    RangeError,
    RequestRefusedError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from bmrl.export import AsyncTritonClient, TritonClient

pytestmark = pytest.mark.server

WORDS = b"0.1 0.7 0.1 0.1"
NUMBERS = itertools.count()


def fresh_words(order):
    """Return an order that the obedient server has not had before: it counts the tries of each."""
    return b"%s %s 0.%d" % (order.encode(), WORDS[:-4], 100000 + next(NUMBERS))


@pytest.fixture
def num_tries(obedient_server):
    """Return a function that says how many requests the ensemble's place has had since it was last called."""
    with tritonclient.grpc.InferenceServerClient(obedient_server.grpc_url) as connection:
        request = tritonclient.grpc.InferInput("image", [len(WORDS)], "UINT8")
        request.set_data_from_numpy(np.frombuffer(WORDS, np.uint8))
        counts = [0]

        def count():
            counts.append(int(connection.infer("bmrl_attribute", [request]).as_numpy("embedding")[0, 0]))
            return counts[-1] - counts[-2] - 1

        count()
        yield count


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [
        ("UNAVAILABLE", ServerUnavailableError, 4),
        ("INVALID_ARG", RequestRefusedError, 1),
        ("NOT_FOUND", RequestRefusedError, 1),
        ("INTERNAL", ServerError, 1),
        ("UNSUPPORTED", RequestRefusedError, 1),
    ],
)
def test_an_error_of_the_server_is_typed_and_tried_again_only_when_unavailable(
    ask, obedient_server, num_tries, code, kind, tries
):
    message = r"^127.0.0.1:\d+: expected an answer to attribute, got .*as ordered$"
    with pytest.raises(ServerError, match=message) as error:
        ask(obedient_server, "attribute", [fresh_words(f"fail {code} 100")], retries=3, backoff=0.001)
    assert type(error.value) is kind
    assert num_tries() == tries


def test_a_server_that_is_available_again_in_time_has_not_failed(ask, obedient_server, num_tries):
    (answer,) = ask(obedient_server, "attribute", [fresh_words("fail UNAVAILABLE 2")], backoff=0.001)
    assert answer.generator == "StyleGAN3"
    assert num_tries() == 3
    with pytest.raises(ServerUnavailableError, match="as ordered"):
        ask(obedient_server, "attribute", [fresh_words("fail UNAVAILABLE 2")], retries=1, backoff=0.001)
    assert num_tries() == 2


def test_a_late_answer_is_an_error_and_not_asked_for_again(ask, obedient_server, num_tries):
    with pytest.raises(ServerTimeoutError, match=r"expected an answer to attribute, got none within 0.3 s$"):
        ask(obedient_server, "attribute", [b"wait 0.8 " + WORDS], timeout=0.3, backoff=0.001)
    assert num_tries() == 1


def test_the_time_is_for_all_requests_of_a_call(ask, obedient_server):
    with pytest.raises(ServerTimeoutError, match=r"expected an answer to attribute, got none within 0.7 s$"):
        ask(obedient_server, "attribute", [b"wait 0.3 " + WORDS] * 4, timeout=0.7)


@pytest.mark.parametrize("constant", ["MODEL_NAME", "ENSEMBLE_NAME"])
def test_a_model_that_is_not_served_is_refused(ask, obedient_server, monkeypatch, constant):
    monkeypatch.setattr(f"bmrl.export.triton.client.session.{constant}", "missing")
    called = {"MODEL_NAME": "get_model_config", "ENSEMBLE_NAME": "attribute"}[constant]
    with pytest.raises(RequestRefusedError, match=f"to {called}, got .*unknown model: 'missing' is not found"):
        ask(obedient_server, "attribute", [WORDS])


@pytest.mark.parametrize("lost", [1, 3])
def test_lost_connections_are_made_again(ask, obedient_server, network, images, eager, lost):
    with network(getattr(obedient_server, f"{ask.protocol}_url"), lost) as way:
        answer = ask(way.url, "infer", images[:2], retries=20, backoff=0.02)
        assert way.num_connections > lost
    np.testing.assert_allclose(answer.probabilities, eager[0][:2].numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_network_that_stays_away_is_tried_as_often_as_asked_for(obedient_server, network, images, protocol, retries):
    with (
        network(getattr(obedient_server, f"{protocol}_url")) as way,
        TritonClient(way.url, protocol, retries=retries, backoff=0.001) as client,
    ):
        assert client.labels()
        assert way.num_connections == 1
        way.cut()
        with pytest.raises(ServerUnavailableError, match=f"^{way.url}: expected an answer to infer, got .+"):
            client.infer(images[0])
        if protocol == "http":  # gRPC connects by itself; aiohttp may have noticed the cut before the first try
            assert way.num_connections in (1 + retries, 2 + retries)
        way.lost = 0
        while True:  # gRPC needs a moment to see that it is back
            with contextlib.suppress(ServerUnavailableError):
                assert client.infer(images[0]).probabilities.shape == (4,)
                break


def silent(connection):
    pass


def closing(connection):
    connection.close()


def babbling(connection):
    connection.recv(1)
    connection.sendall(b"who is there?\r\n\r\n")
    connection.close()


def dripping(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: ")
    connection.settimeout(0.05)
    gone = False
    while not gone:
        connection.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            gone = not connection.recv(65536)


def breaking(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    connection.close()


def polite(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n<html>no</html>\n")
    connection.close()


def absent(connection):
    raise AssertionError("no listener")


@pytest.mark.parametrize(
    ("behavior", "grpc", "http"),
    [
        (silent, ServerTimeoutError, ServerTimeoutError),
        (dripping, ServerUnavailableError, ServerTimeoutError),
        (closing, ServerUnavailableError, ServerUnavailableError),
        (absent, ServerUnavailableError, ServerUnavailableError),
        (babbling, ServerUnavailableError, ServerError),
        (breaking, ServerUnavailableError, ServerError),
        (polite, ServerUnavailableError, ServerError),
    ],
)
def test_what_does_not_answer_is_an_error_of_one_line(ask, images, strange_server, behavior, grpc, http):
    with strange_server(behavior) as (url, connections):
        if behavior is absent:
            with socket.create_server(("127.0.0.1", 0)) as gone:
                url = f"127.0.0.1:{gone.getsockname()[1]}"
        with pytest.raises(ServerError, match=rf"^{url}: expected an answer to get_model_config, got .+") as error:
            ask(url, "infer", images, timeout=0.5, backoff=0.001)
        assert type(error.value) is {"grpc": grpc, "http": http}[ask.protocol]
        assert "\n" not in str(error.value)
        if ask.protocol == "http":
            assert len(connections) == {closing: 6, absent: 0}.get(behavior, 1)  # aiohttp doubles a GET


def test_the_time_is_for_all_tries_of_a_call(ask, images, strange_server):
    with strange_server(closing) as (url, connections):
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError, match=f"^{url}: expected an answer to get_model_config, got"):
            ask(url, "infer", images, timeout=0.5, retries=10**6, backoff=0.01)
        assert time.monotonic() - start < 30  # 10**6 tries take hours, at 10 ms each
        assert len(connections) > 2


def test_tries_come_ever_more_slowly(ask, strange_server):
    moments = []

    def closing(connection):
        moments.append(time.monotonic())
        connection.close()

    with strange_server(closing) as (url, _):
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError):
            ask(url, "labels", retries=3, backoff=0.1)
        assert time.monotonic() - start >= 0.7
    if (
        ask.protocol == "grpc"
    ):  # which connects by itself, regardless of the tries, and by default less often than they come
        assert len(moments) >= 3
    else:
        moments = moments[::2]  # aiohttp doubles a GET
        assert len(moments) == 4
        assert (np.diff(moments) >= [0.1, 0.2, 0.4]).all()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"timeout": 0}, RangeError, "timeout: expected > 0, got 0"),
        ({"timeout": float("nan")}, RangeError, "timeout: expected > 0, got nan"),
        ({"timeout": float("inf")}, RangeError, "timeout: expected at most 10000000 seconds, got inf"),
        ({"timeout": "x"}, DTypeError, "timeout: expected a number, got 'x'"),
        ({"timeout": None}, DTypeError, "timeout: expected a number, got None"),
        ({"timeout": True}, DTypeError, "timeout: expected a number, got True"),
        ({"retries": -1}, RangeError, "retries: expected an integer >= 0, got -1"),
        ({"retries": 1.5}, DTypeError, "retries: expected an integer >= 0, got 1.5"),
        ({"retries": None}, DTypeError, "retries: expected an integer >= 0, got None"),
        ({"backoff": -0.1}, RangeError, "backoff: expected >= 0, got -0.1"),
        ({"backoff": 1e300}, RangeError, "backoff: expected at most 10000000 seconds, got 1e+300"),
        ({"backoff": "1"}, DTypeError, "backoff: expected a number, got '1'"),
        ({"shared_memory": "false"}, DTypeError, "shared_memory: expected True or False, got 'false'"),
    ],
)
def test_refuses_other_options(ask, images, options, kind, message):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        ask("127.0.0.1:1", "infer", images, **options)


@pytest.mark.parametrize(
    "url",
    ["", "localhost", ":1", "localhost:", "localhost:0", "localhost:65536", "a b:1", "a:1/b", "::1:8001", "me@a:1"],
)
def test_refuses_what_is_no_address(ask, images, url):
    with pytest.raises(RangeError, match=rf"^url: expected host:port, such as 127.0.0.1:8001, got '{url}'$"):
        ask(url, "infer", images)


@pytest.mark.parametrize("kind", [TritonClient, AsyncTritonClient])
@pytest.mark.parametrize("url", [None, 8001, b"127.0.0.1:1", ("127.0.0.1", 1)])
def test_refuses_an_address_that_is_no_text(kind, url):
    with pytest.raises(DTypeError, match=r"^url: expected host:port, got (NoneType|int|bytes|tuple)$"):
        kind(url)


@pytest.mark.parametrize("kind", [TritonClient, AsyncTritonClient])
@pytest.mark.parametrize("protocol", [None, 1, ["grpc"], "GRPC"])
def test_refuses_another_protocol(kind, protocol):
    with pytest.raises(RangeError, match=r"^protocol: expected 'grpc' or 'http', got "):
        kind("127.0.0.1:1", protocol)


def test_refuses_addresses_with_a_scheme(ask, images):
    with pytest.raises(RangeError, match=r"^url: expected host:port without a scheme, got 'http://127.0.0.1:1'"):
        ask("http://127.0.0.1:1", "infer", images)


@pytest.mark.parametrize("kind", [ServerUnavailableError, ServerTimeoutError, RequestRefusedError])
def test_every_failure_is_a_server_error(kind):
    assert issubclass(kind, ServerError)
    assert issubclass(kind, BMRLError)
