from __future__ import annotations

import json

import pytest

from bmrl.errors import ConfigError, RangeError
from bmrl.training import TrainingConfig, recipes


def test_paper_is_the_papers():
    recipe = recipes.paper()
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adam", 1e-4, 1e-3)
    assert (recipe.batch_size, recipe.drop_every, recipe.precision) == (32, 15, "32-true")
    assert (recipe.flip, recipe.shift, recipe.ema_decay) == (False, 0, 0)


def test_survives_json():
    recipe = recipes.tiny(seed=3, objective={"margin": 0.5})
    assert TrainingConfig.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer >= 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected > 0, got nan"),
        ({"weight_decay": -1}, "weight_decay: expected >= 0, got -1"),
        ({"ema_decay": 1.0}, "ema_decay: expected 0 <= ema_decay < 1, got 1.0"),
    ],
)
def test_rejects_values_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**changes)


def test_rejects_unknown_choices_and_keys():
    with pytest.raises(RangeError, match="optimizer: expected 'adam' or 'adamw', got 'sgd'"):
        TrainingConfig(optimizer="sgd")
    with pytest.raises(ConfigError, match=r"momentum: expected one of batch_size, .*, got an unknown key"):
        TrainingConfig.from_dict({"momentum": 0.9})
