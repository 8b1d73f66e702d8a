"""No matter what a server answers, a client gives right answers or raises an error of bmrl, in time."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import torch
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from bmrl.errors import BMRLError, ServerError
from bmrl.export import TritonClient
from bmrl.inference import Limits

SIDE, WIDTH = 8, 3
NAMES = ("photographs", "StyleGAN3")
IMAGES = torch.arange(2 * 3 * SIDE * SIDE, dtype=torch.uint8).reshape(2, 3, SIDE, SIDE)
PROBABILITIES = np.array([[0.75, 0.25], [0.125, 0.875]], np.float32)
EMBEDDING = np.array([[1, -2, 3], [0.5, 0, 7]], np.float32)
SCORE = np.array([[-3.5], [2.25]], np.float32)
LIMITS = Limits(unseen=-9.0, seen=-4.0, probability=0.5, score="mahalanobis").to_dict()


def config_of(names=NAMES, **fields):
    """Return the configuration of a model, as JSON; ``fields`` replace parameters."""
    families = [("none", "none"), ("EFS", "GAN")]
    entries = [
        {"name": name, "manipulation": manipulation, "architecture": architecture}
        for name, (manipulation, architecture) in zip(names, families, strict=False)
    ]
    parameters = {"generators": entries, "image_size": SIDE, "embed_dim": WIDTH, "thresholds": [0.6],
                  "limits": LIMITS} | fields  # fmt: skip
    return {
        "name": "bmrl",
        "max_batch_size": 4,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": [3, SIDE, SIDE]}],
        "output": [
            {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [len(NAMES)]},
            {"name": "embedding", "data_type": "TYPE_FP32", "dims": [WIDTH]},
            {"name": "score", "data_type": "TYPE_FP32", "dims": [1]},
        ],
        "parameters": {name: {"string_value": json.dumps(value)} for name, value in parameters.items()},
    }


def answer_of(model, request_id):
    """Return the true answer to a request: the values of each output as an array."""
    outputs = {"probabilities": PROBABILITIES, "embedding": EMBEDDING, "score": SCORE}
    if model == "bmrl_attribute":
        outputs = {name: array[:1] for name, array in outputs.items()} | {
            "index": np.array([[0]], np.int32),
            "probability": np.array([[0.75]], np.float32),
            "seen": np.array([[True]]),
            "verdict": np.array([[0]], np.int32),
        }
    return {"model_name": model, "model_version": "1", "id": request_id, "outputs": outputs}


DATATYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "int32": "INT32", "bool": "BOOL", "uint8": "BOOL"}


def tensors_of(answer):
    """Yield name, datatype, shape and bytes; an output may also be given as these four."""
    for name, values in answer["outputs"].items():
        if isinstance(values, tuple):
            yield values
        else:
            yield name, DATATYPES[str(values.dtype)], list(values.shape), values.tobytes()


def as_json(answer):
    """Return an answer as HTTP has it: the JSON, and the bytes that follow it."""
    outputs, values = [], b""
    for name, datatype, shape, data in tensors_of(answer):
        parameters = {"binary_data_size": len(data)}
        outputs.append({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
        values += data
    return answer | {"outputs": outputs}, values


def as_message(answer):
    """Return an answer as gRPC has it."""
    message = service_pb2.ModelInferResponse(**{name: answer[name] for name in ("model_name", "model_version", "id")})
    for name, datatype, shape, data in tensors_of(answer):
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_output_contents.append(data)
    return message.SerializeToString()


class HTTPLiar(http.server.ThreadingHTTPServer):
    """Answers by HTTP what its ``config`` and ``answer`` say; either may be bytes, which are sent as they are."""

    daemon_threads = True
    protocol = "http"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"127.0.0.1:{self.server_address[1]}"
        self.reset()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def reset(self):
        self.config = config_of
        self.answer = answer_of

    def stop(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # the client has gone


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        config = self.server.config()
        self.send(config if isinstance(config, bytes) else json.dumps(config).encode())

    def do_POST(self):
        length = int(self.headers["Inference-Header-Content-Length"])
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"]))[:length])
        answer = self.server.answer(self.path.split("/")[3], request["id"])
        if isinstance(answer, bytes):
            self.send(answer)
        else:
            header, values = answer if isinstance(answer, tuple) else as_json(answer)
            header = json.dumps(header).encode()
            self.send(header + values, {"Inference-Header-Content-Length": str(len(header))})

    def send(self, body, headers=None):
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class GRPCLiar:
    """The same by gRPC."""

    protocol = "grpc"

    def __init__(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        handlers = {
            "ModelConfig": grpc.unary_unary_rpc_method_handler(self.model_config),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(
                self.model_infer, request_deserializer=service_pb2.ModelInferRequest.FromString
            ),
        }
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
        )
        self.url = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.reset()
        self.server.start()

    def reset(self):
        self.config = config_of
        self.answer = answer_of

    def stop(self):
        self.server.stop(None).wait()

    def model_config(self, request, context):
        config = self.config()
        if isinstance(config, bytes):
            return config
        message = json_format.ParseDict(config, model_config_pb2.ModelConfig())
        return service_pb2.ModelConfigResponse(config=message).SerializeToString()

    def model_infer(self, request, context):
        answer = self.answer(request.model_name, request.id)
        return answer if isinstance(answer, bytes) else as_message(answer)


@pytest.fixture(scope="module")
def liars():
    liars = {"http": HTTPLiar(), "grpc": GRPCLiar()}
    yield liars
    for liar in liars.values():
        liar.stop()


@pytest.fixture(params=["http", "grpc"])
def liar(request, liars):
    liars[request.param].reset()
    return liars[request.param]


def infer(liar):
    with TritonClient(liar.url, liar.protocol, timeout=10, retries=0) as client:
        return client.infer(IMAGES)


def attribute(liar):
    with TritonClient(liar.url, liar.protocol, timeout=10, retries=0) as client:
        return client.attribute([b"photo"])


def assert_right(answer):
    np.testing.assert_array_equal(answer.probabilities, PROBABILITIES)
    np.testing.assert_array_equal(answer.embedding, EMBEDDING)
    np.testing.assert_array_equal(answer.score, SCORE)


def test_the_truth_is_believed(liar):
    assert_right(infer(liar))
    (found,) = attribute(liar)
    assert (found.generator, found.probability, found.seen) == ("photographs", 0.75, True)


def test_outputs_may_come_in_any_order(liar):
    def turned(model, request_id):
        answer = answer_of(model, request_id)
        return answer | {"outputs": dict(reversed(answer["outputs"].items()))}

    liar.answer = turned
    assert_right(infer(liar))
    assert attribute(liar)[0].generator == "photographs"


def rows(*values):
    return np.array(values, np.float32)


ALWAYS = [
    ({"id": "other"}, "an answer of id .*, got 'other'"),
    ({"id": ""}, "an answer of id .*, got ''"),
    ({"model_name": "bmrl2"}, "an answer of model bmrl.*, got 'bmrl2'"),
    ({"model_version": ""}, "an answer of a numbered version, got ''"),
    ({"model_version": "x\x1b[2J"}, r"an answer of a numbered version, got 'x\\x1b\[2J'"),
    ({"more": rows([1])}, "the outputs .*, got .*more"),
    ({"embedding": None}, "the outputs .*, got "),
    ({"more": ("embedding", "FP32", [2, WIDTH], EMBEDDING.tobytes())}, "the outputs .*, got .*embedding.*embedding"),
    ({"probabilities": rows([math.nan, 1], [0, 1])}, "expected finite numbers, got nan at"),
    ({"probabilities": rows([1, 1], [0, 1])}, "expected rows of probabilities .* sum 2"),
    ({"probabilities": rows([-5, 6], [0, 1])}, "expected rows of probabilities .* minimum -5"),
    ({"probabilities": rows([0, 0], [0, 1])}, "expected rows of probabilities .* sum 0"),
    ({"probabilities": rows([math.inf, 0], [0, 1])}, "expected finite numbers, got inf at"),
    ({"embedding": rows([1, math.nan, 1], [1, 1, 1])}, "embedding: NaN or infinity"),
    ({"embedding": rows([1, 1, 1], [1, 1, -math.inf])[::-1]}, "embedding: NaN or infinity"),
    ({"score": rows([math.nan], [1])}, "score: NaN or infinity"),
]


def changed(changes, count):
    def lie(model, request_id):
        answer = answer_of(model, request_id)
        for name, value in changes.items():
            if name in answer:
                answer[name] = value
            elif value is None:
                del answer["outputs"][name]
            else:
                answer["outputs"][name] = value[:count] if isinstance(value, np.ndarray) else value
        return answer

    return lie


@pytest.mark.parametrize(("changes", "message"), ALWAYS)
@pytest.mark.parametrize("ask", [infer, attribute])
def test_a_lie_is_an_error(liar, ask, changes, message):
    liar.answer = changed(changes, 2 if ask is infer else 1)
    with pytest.raises(ServerError, match=rf"^{liar.url}: expected .*{message}") as error:
        ask(liar)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "values",
    [
        PROBABILITIES.astype(np.float64),
        PROBABILITIES[:1],
        PROBABILITIES[0],
        PROBABILITIES[:, :1],
        np.ones((2, 3), np.float32) / 3,
        ("probabilities", "INT32", [2, 2], PROBABILITIES.tobytes()),
        ("probabilities", "FP32", [2, 2], PROBABILITIES.tobytes()[:-1]),
        ("probabilities", "FP32", [2, 2], PROBABILITIES.tobytes() + b"\0\0\0\0"),
        ("probabilities", "FP32", [2, 2], b""),
        ("probabilities", "FP32", [2**62, 2], PROBABILITIES.tobytes()),
        ("probabilities", "FP32", [-1, 2], PROBABILITIES.tobytes()),
        ("embedding", "FP32", [2, 3], EMBEDDING.tobytes()),
    ],
)
def test_a_tensor_of_another_kind_is_an_error(liar, values):
    liar.answer = changed({"probabilities": values}, 2)
    with pytest.raises(ServerError, match=rf"^{liar.url}: expected (probabilities FP32 \(2, 2\)|the outputs )"):
        infer(liar)


@pytest.mark.parametrize(
    "changes",
    [
        {"index": np.array([[1]], np.int32)},
        {"index": np.array([[-2]], np.int32)},
        {"index": np.array([[2]], np.int32)},
        {"probability": rows([0.7])},
        {"probability": rows([math.nan])},
        {"seen": np.array([[False]])},
        {"verdict": np.array([[1]], np.int32)},
        {"verdict": np.array([[7]], np.int32)},
        {"score": np.array([[-4.5]], np.float32)},
        {"seen": np.array([[2]], np.uint8)},
        {"probabilities": rows([0.25, 0.75])},
    ],
)
def test_an_attribution_that_contradicts_itself_is_an_error(liar, changes):
    liar.answer = changed(changes, 1)
    expected = "(index, probability, seen and verdict of image 0|seen BOOL)"
    with pytest.raises(ServerError, match=rf"^{liar.url}: expected {expected}"):
        attribute(liar)


DEEP = b"[" * 100_000 + b"]" * 100_000


def with_field(**fields):
    return lambda: config_of() | fields


@pytest.mark.parametrize(
    "config",
    [
        lambda: config_of(("same", "same")),
        lambda: config_of(("a\x1b[2J", "b")),
        lambda: config_of(("a\nb", "b")),
        lambda: config_of(("", "b")),
        lambda: config_of(()),
        lambda: config_of(("one",)),
        lambda: config_of(generators="ab"),
        lambda: config_of(generators=None),
        *(
            lambda name=name, value=value: config_of(**{name: value})
            for name in ("image_size", "embed_dim")
            for value in (0, -1, 2**40, math.inf, math.nan, 1.5, True, "8", None, [8], 10**4000, SIDE + 1)
        ),
        *(
            lambda value=value: config_of(thresholds=value)
            for value in ([], [7], [0], [1], [math.nan], ["0.6"], [True], 0.6, None, {"a": 0.5})
        ),
        *(with_field(max_batch_size=size) for size in (0, -1, 65)),
        with_field(name="other"),
        with_field(name=""),
        with_field(input=[]),
        with_field(output=[]),
        with_field(output=config_of()["output"][::-1]),
        with_field(output=[entry | {"data_type": "TYPE_FP64"} for entry in config_of()["output"]]),
        with_field(output=[entry | {"name": "same"} for entry in config_of()["output"]]),
        with_field(parameters={}),
        lambda: (
            config_of(image_size=2**20)
            | {"input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": [3, 2**20, 2**20]}]}
        ),
        lambda: config_of(generators=json.loads(DEEP[:500] + DEEP[-500:])),
        lambda: (
            config_of() | {"parameters": config_of()["parameters"] | {"generators": {"string_value": DEEP.decode()}}}
        ),
    ],
)
def test_a_description_of_no_model_is_an_error(liar, config):
    liar.config = config
    with pytest.raises(ServerError, match=r"expected .*, got ") as error:
        infer(liar)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"3", b'"x"', b"{", b"\xff", DEEP, b'{"max_batch_size": 1099511627776}']
)
@pytest.mark.parametrize("what", ["config", "answer"])
def test_a_body_that_is_no_answer_is_an_error(liars, body, what):
    liar = liars["http"]
    liar.reset()
    setattr(liar, what, lambda *arguments: body)
    for ask in (infer, attribute):
        with pytest.raises(ServerError, match=r"expected .*, got "):
            ask(liar)


def test_bytes_that_belong_to_no_output_are_an_error(liars):
    liar = liars["http"]
    liar.reset()

    def longer(model, request_id):
        header, values = as_json(answer_of(model, request_id))
        return header, values + b"more"

    liar.answer = longer
    with pytest.raises(ServerError, match="expected an answer to infer, got 4 bytes that belong to no output"):
        infer(liar)


OTHERS = [
    config_of(NAMES[::-1]),
    config_of(thresholds=[0.8]),
    config_of() | {"max_batch_size": 3},
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("method", ["infer", "attribute"])
def test_a_server_that_comes_to_serve_another_model_is_not_misread(liar, method, other):
    def use(client):
        return client.infer(IMAGES) if method == "infer" else client.attribute([b"photo"])

    with TritonClient(liar.url, liar.protocol, timeout=10) as client:
        use(client)
        liar.config = lambda: other
        with pytest.raises(ServerError, match=r"expected the model that this client knows, got other classes"):
            use(client)
        liar.config = config_of
        use(client)


def test_a_model_that_changes_while_it_answers_is_not_misread(liar):
    calls = iter([config_of(), config_of(NAMES[::-1])])
    liar.config = lambda: next(calls)
    with pytest.raises(ServerError, match=r"expected the model that this client knows, got other classes"):
        attribute(liar)


def test_parts_of_a_batch_by_different_versions_are_an_error(liar):
    versions = iter("12")
    liar.answer = lambda model, request_id: answer_of(model, request_id) | {"model_version": next(versions)}
    liar.config = lambda: config_of() | {"max_batch_size": 2}
    with (
        TritonClient(liar.url, liar.protocol, timeout=10) as client,
        pytest.raises(ServerError, match=r"expected one version for all images, got 1, 2$"),
    ):
        client.infer(torch.cat((IMAGES, IMAGES)))


def test_each_request_has_an_id_of_its_own(liar):
    ids = []

    def note(model, request_id):
        ids.append(request_id)
        return answer_of(model, request_id)

    liar.answer = note
    infer(liar)
    infer(liar)
    attribute(liar)
    assert len({*ids, ""}) == 4


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw, whole):
    """Draw a copy of JSON data with one part replaced or left out."""
    whole = json.loads(json.dumps(whole))
    part, keys = whole, []
    while isinstance(part, dict | list) and part and (not keys or draw(st.booleans())):
        key = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        keys.append((part, key))
        part = part[key]
    holder, key = keys[-1]
    if draw(st.booleans()):
        holder[key] = draw(values)
    else:
        del holder[key]
    return whole


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def right_or_refused(liar):
    with contextlib.suppress(BMRLError):
        assert_right(infer(liar))
    with contextlib.suppress(BMRLError):
        (found,) = attribute(liar)
        assert (found.probability, found.seen) == (0.75, True)


@QUICK
@given(st.data())
def test_a_damaged_answer_is_refused_or_right(liars, data):
    liar = liars["http"]
    liar.reset()
    models = ("bmrl", "bmrl_attribute")
    drawn = {model: data.draw(damaged(as_json(answer_of(model, "ID"))[0])) for model in models}

    def answer(model, request_id):
        header = json.loads(json.dumps(drawn[model]).replace('"ID"', json.dumps(request_id)))
        return header, as_json(answer_of(model, request_id))[1]

    liar.answer = answer
    right_or_refused(liar)


@QUICK
@given(st.data())
def test_a_damaged_description_is_refused_or_right(liars, data):
    whole = config_of()
    entry = data.draw(st.sampled_from([*whole["parameters"].values()]))
    entry["string_value"] = json.dumps(data.draw(damaged([json.loads(entry["string_value"])]))[:1])[1:-1]
    whole = data.draw(damaged(whole)) if data.draw(st.booleans()) else whole
    liar = liars["http"]
    liar.reset()
    liar.config = lambda: whole
    right_or_refused(liar)


@QUICK
@given(st.data(), st.sampled_from(["config", "answer"]))
def test_damaged_messages_raise_nothing_foreign(liars, data, what):
    """Bytes of gRPC's messages are changed, or all replaced."""
    liar = liars["grpc"]
    liar.reset()
    places = st.floats(0, 1, exclude_max=True)
    changes = data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4))
    instead = data.draw(st.none() | st.binary(max_size=50))

    def damage(whole):
        made = bytearray(whole)
        for place, value in changes:
            made[int(place * len(made))] = value
        return bytes(made) if instead is None else instead

    if what == "config":
        message = json_format.ParseDict(config_of(), model_config_pb2.ModelConfig())
        whole = service_pb2.ModelConfigResponse(config=message).SerializeToString()
        liar.config = lambda: damage(whole)
    else:
        liar.answer = lambda model, request_id: damage(as_message(answer_of(model, request_id)))
    for ask in (infer, attribute):
        with contextlib.suppress(BMRLError):
            ask(liar)
