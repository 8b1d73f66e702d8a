"""A whole training with a pretrained encoder: what is kept of its weights."""

from __future__ import annotations

import pytest
import torch

from bmrl.models import load_model
from bmrl.training import train

timm = pytest.importorskip("timm")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_network_is_kept_bit_by_bit_through_training_and_averaging(data, runs, tmp_path, frozen):
    torch.manual_seed(1)
    start = timm.create_model("test_efficientnet").state_dict()
    torch.save(start, tmp_path / "start.pth")
    part = {"kind": "pretrained", "name": "test_efficientnet", "weights": str(tmp_path / "start.pth"), "frozen": frozen}
    train(
        data,
        tmp_path / "run",
        model_changes=runs.plain | {"appearance": part},
        recipe_changes=runs.brisk | {"learning_rate": 0.01},
        device="cpu",
        progress=False,
    )
    encoder = load_model(tmp_path / "run").visual_encoder.views["appearance"].encoder
    kept = encoder.tower.network.network.state_dict()
    assert len(kept) > 20
    changed = [name for name, value in kept.items() if not torch.equal(value, start[name])]
    assert bool(changed) is not frozen
    if not frozen:
        assert {name.rpartition(".")[2] for name in changed} >= {"weight", "bias", "running_mean", "running_var"}
    assert torch.equal(encoder.tower.mean, torch.tensor(timm.get_pretrained_cfg("test_efficientnet").mean))


def test_the_recommended_preset_trains(data, tmp_path):
    train(
        data,
        tmp_path / "run",
        preset="recommended",
        model_changes={
            "image_size": 32,
            "appearance.input_size": 48,
            "statistics.hidden_dim": 16,
            "decision.score": None,  # there are too few validation images for it
        },
        recipe_changes={"epochs": 2, "batch_size": 8},
        device="cpu",
        progress=False,
    )
    model = load_model(tmp_path / "run")
    encoder = model.visual_encoder.views["statistics"].encoder
    assert 8 < encoder.num_images < 48  # two epochs of 24, averaged like the weights
    assert (encoder.variance >= 0).all()
    assert encoder.mean.abs().max() > 0.1
    assert model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).probabilities.isfinite().all()
