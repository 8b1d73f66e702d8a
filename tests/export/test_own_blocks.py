"""A model with blocks that are not of the library is exported, verified and served like any other."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bmrl.evaluation import evaluate
from bmrl.export import FORMATS, TritonClient, TritonServer, export_model, load_artifact, write_triton_repository
from bmrl.export.graph import InferenceGraph
from bmrl.inference import Attributor
from bmrl.models import View, build_model, presets
from tests.evaluation.conftest import CLASSES, manifest  # noqa: F401 - a fixture
from tests.models.blocks import Cosine, Language, Parsing, Pooled

pytestmark = pytest.mark.slow


class Volume(torch.nn.Module):
    """Convolves all three colors at once: a weight of five axes."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, (3, 5, 5), padding=(0, 2, 2))

    def forward(self, images):
        return self.layer(images[:, None]).squeeze(2)


@pytest.fixture(scope="module")
def own_model():
    torch.manual_seed(0)
    config = presets.tiny(
        generators=CLASSES,
        image_size=32,
        embed_dim=16,
        **{"*.channels": (4, 8), "*.convs_per_stage": (1, 1), "*.num_blocks": 1},
    )
    model = build_model(
        config,
        appearance=Pooled(),
        parsing=Parsing(),
        language=Language(49408),
        head=torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, len(CLASSES))),
        views={"cosine": View(Cosine(32), Pooled(1)), "volume": View(Volume(), Pooled(2))},
    )
    with torch.no_grad():
        model(images(16))  # the batch norms see something
        model.head[-1].weight.mul_(30)
    return model.eval()


def images(count, seed=1):
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=rng).float()
    return torch.nn.functional.interpolate(coarse, size=(32, 32)).to(torch.uint8)


def eager(model, batch):
    with torch.inference_mode():
        output = model(batch)
    return output.probabilities.numpy(), output.embedding.numpy(), output.probabilities.amax(1, keepdim=True).numpy()


@pytest.mark.parametrize("name", ["torchscript", "pt2", "onnx"])
def test_an_artifact_answers_as_the_model(own_model, tmp_path, name):
    path = tmp_path / f"model{FORMATS[name].suffix}"
    export_model(own_model, path, name)
    loaded = load_artifact(path).run
    for batch in (images(1), images(5)):
        for got, expected in zip(loaded(batch), eager(own_model, batch), strict=True):
            np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-4, atol=1e-4)


def compiled(block):
    return torch.compile(block, backend="eager")


@pytest.mark.parametrize(
    ("wrapped", "name"),  # torch.export takes no ScriptModule
    [(torch.jit.script, "torchscript"), (compiled, "torchscript"), (compiled, "pt2"), (compiled, "onnx")],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_a_block_that_is_scripted_or_compiled(tmp_path, wrapped, name):
    torch.manual_seed(0)
    sizes = {"*.channels": (4, 8), "*.convs_per_stage": (1, 1), "*.num_blocks": 1, "*.mlp_dim": 16}
    config = presets.tiny(generators=CLASSES, image_size=32, embed_dim=16, parsing=None, language=None, **sizes)
    model = build_model(config, appearance=wrapped(Pooled()), head=wrapped(torch.nn.Linear(16, len(CLASSES)))).eval()
    path = tmp_path / f"model{FORMATS[name].suffix}"
    export_model(model, path, name)
    for got, expected in zip(load_artifact(path).run(images(3)), eager(model, images(3)), strict=True):
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-4, atol=1e-4)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.timeout(600)
def test_a_compiled_artifact_answers_as_the_model(own_model, tmp_path):
    export_model(own_model, tmp_path / "model.pt2", "aoti")
    for got, expected in zip(
        load_artifact(tmp_path / "model.pt2").run(images(3)), eager(own_model, images(3)), strict=True
    ):
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-4, atol=1e-4)


def test_the_graph_leaves_the_model_alone_and_holds_what_it_runs(own_model):
    before = {name: tensor.clone() for name, tensor in own_model.state_dict().items()}
    graph = InferenceGraph(own_model, dtype=torch.bfloat16)
    assert not any(name.startswith(("model.parsing", "model.language", "model.pred")) for name in graph.state_dict())
    views = graph.model.visual_encoder.views
    assert views["volume"].operator.layer.weight.dtype == torch.float32
    assert torch.equal(views["cosine"].operator.basis, own_model.visual_encoder.views["cosine"].operator.basis)
    assert views["volume"].encoder.last.weight.dtype == torch.bfloat16
    with torch.inference_mode():
        for got, expected in zip(graph(images(4)), eager(own_model, images(4)), strict=True):
            np.testing.assert_allclose(got.numpy(), expected, atol=6e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own_model.state_dict().items())


def test_an_artifact_runs_where_the_blocks_are_unknown(own_model, tmp_path):
    export_model(own_model, tmp_path / "model.pt", "torchscript")
    torch.save(images(2), tmp_path / "images.pt")
    code = (
        "import sys, torch; graph = torch.jit.load('model.pt'); out = graph(torch.load('images.pt'))\n"
        "assert not any(name.startswith(('bmrl', 'tests')) for name in sys.modules)\n"
        "torch.save(out[0], 'out.pt')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    got = torch.load(tmp_path / "out.pt").numpy()
    np.testing.assert_allclose(got, eager(own_model, images(2))[0], rtol=1e-4, atol=1e-4)


def test_it_is_evaluated_and_attributes(own_model, manifest, tmp_path):  # noqa: F811
    found = evaluate(own_model, manifest, tmp_path / "report", yardsticks=[])
    assert found is not None
    picture = Image.fromarray(images(1)[0].permute(1, 2, 0).numpy())
    (answer,) = Attributor(own_model)([picture])
    assert list(answer.probabilities.values()) == pytest.approx(eager(own_model, images(1))[0][0].tolist(), abs=1e-4)


@pytest.mark.server
@pytest.mark.timeout(300)
def test_it_is_served(own_model, tmp_path):
    folder = write_triton_repository(own_model, tmp_path / "models", num_threads=1)
    picture = Image.fromarray(images(1)[0].permute(1, 2, 0).numpy())
    picture.save(tmp_path / "face.png")
    with TritonServer(folder) as server, TritonClient(server.grpc_url) as client:
        answer = client.infer(images(3).numpy())
        for got, expected in zip(answer, eager(own_model, images(3)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
