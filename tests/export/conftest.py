"""One small untrained model, its repository, and one real server for all tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import socket
import socketserver
import threading

import pytest
import torch
from torch import nn

from bmrl.export import AsyncTritonClient, TritonClient, TritonServer, write_triton_repository
from bmrl.export.artifact import read_entries, write_entries
from bmrl.export.standalone.artifact_runtime import ADDED, sha256_of
from bmrl.export.triton.repository.config import read_triton_config
from bmrl.generators import Generator
from bmrl.models import build_model, presets

GENERATORS = (
    Generator(name="photographs", manipulation="none", architecture="none"),
    Generator(name="StyleGAN3", manipulation="EFS", architecture="GAN"),
    Generator(name="DiffFace", manipulation="FS", architecture="diffusion"),
    Generator(name="Diffae: näïve, v2", manipulation="AM", architecture="diffusion"),
)


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    config = presets.tiny(
        generators=GENERATORS,
        image_size=32,
        embed_dim=24,
        noise={"patch_size": 16, "truncation": 3.0},
        decision={"thresholds": (0.6, 0.8, 0.95)},
        **{"*.channels": (8, 16), "*.convs_per_stage": (1, 1), "*.num_blocks": 1},
    )
    model = build_model(config)
    with torch.no_grad():  # an untrained head hardly tells images apart; a test of row order needs it to
        model.head[-1].weight.mul_(20)
    return model.eval()


@pytest.fixture(scope="session")
def images(model):
    """Return 19 images whose probabilities and embeddings differ by far more than any tolerance below."""
    rng = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (19, 3, 4, 4), generator=rng).float()
    images = nn.functional.interpolate(coarse, size=(32, 32)).to(torch.uint8)
    with torch.no_grad():
        output = model(images)
    for rows in (output.probabilities, output.embedding):
        assert torch.pdist(rows).min() > 1e-3
    return images


@pytest.fixture(scope="session")
def eager(model, images):
    with torch.no_grad():
        output = model(images)
    return output.probabilities, output.embedding, output.probabilities.amax(1, keepdim=True)


@pytest.fixture(scope="session")
def repository(model, tmp_path_factory):
    return write_triton_repository(
        model, tmp_path_factory.mktemp("repository") / "models", max_batch_size=8, num_threads=1
    )


def write_stand_in(graph, path, **entry):
    """Write a TorchScript graph as an exported file, with what it has to say about itself within it and next to it."""
    within = {name: value for name, value in entry.items() if name not in ADDED}
    torch.jit.save(graph, str(path), _extra_files={"artifact.json": json.dumps(within)})
    entry |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    write_entries(path.parent, read_entries(path.parent) | {path.name: entry})
    return path


@pytest.fixture(scope="session")
def stand_in():
    return write_stand_in


class Brightness(nn.Module):
    """Stands for a model whose weights have gone bad for some inputs: NaN for a white image."""

    def forward(self, images):
        share = images.float().mean((1, 2, 3)) / 255
        share = torch.where(share == 1, torch.nan, share)
        probabilities = torch.stack((share, 1 - share), 1)
        return probabilities, probabilities, probabilities


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory):
    """Serve ``bmrl``, and next to it models that run the same ``model.py`` under other configurations."""
    folder = tmp_path_factory.mktemp("served") / "models"
    shutil.copytree(repository, folder)
    graph = torch.jit.trace(Brightness(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))

    def add(name, change):
        config = read_triton_config(repository)
        config.name = name
        del config.model_warmup[:]
        config.input[0].dims[:] = [3, 8, 8]
        for output in config.output:
            output.dims[:] = [2]
            output.ClearField("label_filename")
        change(config)
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(str(config))
        shutil.copy(repository / "bmrl" / "1" / "model.py", folder / name / "1")
        shutil.copy(repository / "bmrl" / "1" / "artifact_runtime.py", folder / name / "1")
        write_stand_in(graph, folder / name / "1" / "model.pt", format="torchscript", device="cpu")

    def wait_for_four(config):
        config.dynamic_batching.preferred_batch_size.append(4)
        config.dynamic_batching.max_queue_delay_microseconds = 30_000_000

    def take_floats(config):
        config.input[0].data_type = 11  # TYPE_FP32

    def take_no_batch(config):
        config.ClearField("dynamic_batching")
        config.max_batch_size = 0

    add("waits_for_four", wait_for_four)
    add("declares_floats", take_floats)
    add("declares_no_batch", take_no_batch)
    with TritonServer(folder) as server:
        yield server


STAND_IN = '''
import collections, time
import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Takes words for image files: an order, if any, then the probabilities to answer with."""

    def initialize(self, args):
        self.requests = 0
        self.tries = collections.Counter()

    def execute(self, requests):
        return [self.answer(torch.from_dlpack(pb.get_input_tensor_by_name(r, "image"))) for r in requests]

    def answer(self, image):
        assert image.ndim == 1
        self.requests += 1
        text = bytes(image.tolist())
        words = text.decode().split()
        lie = words[0] == "lie"
        if lie:
            del words[0]
        elif words[0] == "wait":
            time.sleep(float(words[1]))
            del words[:2]
        elif words[0] == "fail":
            _, code, times, *words = words
            self.tries[text] += 1
            if self.tries[text] <= int(times):
                error = pb.TritonError("as ordered", getattr(pb.TritonError, code))
                return pb.InferenceResponse([], error=error)
        probabilities = torch.tensor([[float(word) for word in words]])
        best = probabilities.max(1, keepdim=True).values
        outputs = {
            "index": probabilities.argmax(1, keepdim=True).int(),
            "probability": best,
            "seen": (best >= 0.6) ^ lie,
            "verdict": torch.where(best >= 0.6, 0, 2).int(),
            "score": best,
            "probabilities": probabilities,
            "embedding": torch.full((1, 24), float(self.requests)),
        }
        return pb.InferenceResponse([pb.Tensor.from_dlpack(name, value) for name, value in outputs.items()])
'''

STAND_IN_CONFIG = """
name: "bmrl_attribute" backend: "python"
input [{name: "image" data_type: TYPE_UINT8 dims: [-1]}]
output [
    {name: "index" data_type: TYPE_INT32 dims: [1, 1]},
    {name: "probability" data_type: TYPE_FP32 dims: [1, 1]}, {name: "seen" data_type: TYPE_BOOL dims: [1, 1]},
    {name: "verdict" data_type: TYPE_INT32 dims: [1, 1]}, {name: "score" data_type: TYPE_FP32 dims: [1, 1]},
    {name: "probabilities" data_type: TYPE_FP32 dims: [1, 4]}, {name: "embedding" data_type: TYPE_FP32 dims: [1, 24]}
]
instance_group [{kind: KIND_CPU count: 1}]
"""


@pytest.fixture(scope="session")
def obedient_server(repository, tmp_path_factory):
    """Serve ``bmrl``, and in the place of ``bmrl_attribute`` a model that answers, fails and waits as it is told."""
    folder = tmp_path_factory.mktemp("obedient") / "models"
    shutil.copytree(repository, folder)
    home = folder / "bmrl_attribute"
    shutil.rmtree(home, ignore_errors=True)
    (home / "1").mkdir(parents=True)
    (home / "config.pbtxt").write_text(STAND_IN_CONFIG)
    (home / "1" / "model.py").write_text(STAND_IN)
    with TritonServer(folder, shared_memory=True) as server:
        yield server


@pytest.fixture(params=itertools.product(("blocking", "async"), ("grpc", "http")), ids="-".join)
def ask(request):
    """Return a function that makes a client of a server, or of an address, calls one method and closes the client."""
    kind, protocol = request.param

    def ask(server, method, *arguments, **options):
        url = server if isinstance(server, str) else getattr(server, f"{protocol}_url")
        if kind == "blocking":
            with TritonClient(url, protocol, **options) as client:
                return getattr(client, method)(*arguments)

        async def ask():
            async with AsyncTritonClient(url, protocol, **options) as client:
                return await getattr(client, method)(*arguments)

        return asyncio.run(ask())

    ask.protocol = protocol
    return ask


class Network(socketserver.ThreadingTCPServer):
    """A port of its own for the port of a server; loses the first connections, and counts what it passes on.

    Args:
        url: ``host:port`` of the server.
        lost: how many connections are closed at once.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, url, lost=0):
        super().__init__(("127.0.0.1", 0), None)
        host, port = url.split(":")
        self.target = host, int(port)
        self.url = f"127.0.0.1:{self.server_address[1]}"
        self.lost = lost
        self.num_connections = 0
        self.num_bytes = 0
        self.open = []

    def finish_request(self, client, address):
        self.num_connections += 1
        if self.num_connections > self.lost:
            with socket.create_connection(self.target) as server:
                self.open += (client, server)
                back = threading.Thread(target=self.forward, args=(server, client))
                back.start()
                self.forward(client, server)
                back.join()

    def cut(self):
        """Lose all connections, these and those to come."""
        self.lost = float("inf")
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def forward(self, source, target):
        with contextlib.suppress(OSError):  # one side has gone
            while data := source.recv(65536):
                self.num_bytes += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


@pytest.fixture(scope="session")
def network():
    return Network


@contextlib.contextmanager
def _strange_server(behavior):
    """Listen on a port and run ``behavior`` with each connection; yield the address and the list of connections."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with contextlib.suppress(OSError):  # the listener is closed
                while True:
                    connections.append(listener.accept()[0])
                    with contextlib.suppress(OSError):  # the client has gone
                        behavior(connections[-1])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


@pytest.fixture(scope="session")
def strange_server():
    return _strange_server
