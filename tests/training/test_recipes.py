from __future__ import annotations

import inspect
import json

import pytest
import torch

from bmrl.errors import ConfigError, RangeError
from bmrl.losses import BMRLObjective
from bmrl.training import TrainingConfig, recipes

NONE = {
    "compress": 0.0, "compress_twice": 0.3, "webp": 0.15, "least_quality": 30, "most_quality": 98, "rescale": 0.0,
    "least_scale": 0.4, "crop": 0.0, "least_crop": 0.85, "blur": 0.0, "most_blur": 1.5, "sharpen": 0.0, "noise": 0.0,
    "most_noise": 5.0, "color": 0.0, "most_color": 0.1, "container": False,
}  # fmt: skip

PAPER = {  # section 4.1 of the paper; epochs, keep, seed and the objective's learning rate are ours
    "epochs": 45,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 1e-3,
    "objective_learning_rate_scale": 50.0,
    "drop_every": 15,
    "schedule": "step",
    "warmup": 0.0,
    "balance": 0.0,
    "ema_decay": 0.0,
    "flip": False,
    "shift": 0,
    "augmentation": NONE,
    "precision": "32-true",
    "keep": "best",
    "seed": 0,
    "objective": {},
}

TINY = PAPER | {
    "epochs": 12,
    "optimizer": "adamw",
    "learning_rate": 8e-4,
    "weight_decay": 0.02,
    "drop_every": 9,
    "flip": True,
    "precision": "auto",
    "keep": "last",
}


RECOMMENDED = PAPER | {
    "epochs": 14,
    "batch_size": 16,
    "optimizer": "adamw",
    "learning_rate": 5e-4,
    "weight_decay": 0.02,
    "schedule": "cosine",
    "warmup": 0.05,
    "ema_decay": 0.99,
    "balance": 0.8,
    "flip": True,
    "augmentation": NONE
    | {"compress": 0.5, "rescale": 0.3, "crop": 0.35, "blur": 0.05, "sharpen": 0.1, "noise": 0.05, "color": 0.2},
    "precision": "auto",
    "keep": "last",
    "objective": {"label_smoothing": 0.1, "metric_loss": "none"},
}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [(recipes.paper, PAPER), (recipes.tiny, TINY), (recipes.recommended, RECOMMENDED)],
)
def test_presets_are_what_was_measured(preset, expected):
    assert preset().to_dict() == expected


def test_survives_json():
    recipe = recipes.tiny(seed=3, objective={"margin": 0.5})
    assert TrainingConfig.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer >= 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number > 0, got nan"),
        ({"epochs": True}, "epochs: expected an integer >= 1, got True"),
        ({"epochs": 2.0}, "epochs: expected an integer >= 1, got 2.0"),
        ({"epochs": 10**10}, "epochs: expected an integer >= 1 and <= 2147483647, got 10000000000"),
        ({"shift": 0.5}, "shift: expected an integer >= 0, got 0.5"),
        ({"seed": 1.5}, "seed: expected an integer >= 0, got 1.5"),
        ({"seed": 2**63}, "seed: expected an integer >= 0 and <= 9223372036854775807, got 9223372036854775808"),
        ({"flip": 1}, "flip: expected true or false, got 1"),
        ({"learning_rate": "abc"}, "learning_rate: expected a finite number > 0, got 'abc'"),
        ({"learning_rate": 10**400}, "learning_rate: expected a finite number > 0, got "),
        ({"objective": 3}, "objective: expected a mapping from names to values, got 3"),
        ({"objective": {1: 2}}, "objective: expected a mapping from names to values, got dict"),
        ({"objective": {"margn": 2}}, "objective.margn: .*; did you mean objective.margin of BMRLObjective"),
        ({"objective": {"config": 2}}, "objective.config: expected a field of BMRLObjective "),
        ({"objective": {"margin": "abc"}}, "objective.margin: expected a finite number, got 'abc'"),
        ({"objective": {"weights": 3}}, "objective.weights: expected a mapping from names to values, got 3"),
        ({"objective": {"weights": {"dfa": "x"}}}, "objective.weights.dfa: expected a finite number, got 'x'"),
        ({"objective": {"weights": {"dfb": 1}}}, "objective.weights: expected names among dfa, .*, got 'dfb'"),
        ({"objective": {"weights": {"dfa": -1}}}, r"objective.weights\['dfa'\]: expected >= 0, got -1"),
        ({"objective": {"kl_detach": "no"}}, "objective.kl_detach: expected true or false, got 'no'"),
        ({"objective": {"chunk_rows": 0.5}}, "objective.chunk_rows: expected an integer, got 0.5"),
        ({"objective": {"temperature": -1}}, "objective.temperature: expected "),
        ({"objective": {"label_smoothing": 1}}, "objective.label_smoothing: expected "),
        ({"weight_decay": -1}, "weight_decay: expected a finite number >= 0, got -1"),
        ({"balance": 1.5}, "balance: expected a finite number >= 0 and <= 1, got 1.5"),
        ({"warmup": 1}, "warmup: expected a finite number >= 0 and < 1, got 1"),
        ({"ema_decay": 1.0}, "ema_decay: expected a finite number >= 0 and < 1, got 1.0"),
    ],
)
def test_rejects_values_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**changes)


def test_rejects_unknown_choices_and_keys():
    with pytest.raises(RangeError, match="optimizer: expected 'adam' or 'adamw', got 'sgd'"):
        TrainingConfig(optimizer="sgd")
    with pytest.raises(RangeError, match="schedule: expected 'step' or 'cosine', got 'linear'"):
        TrainingConfig(schedule="linear")
    with pytest.raises(
        ConfigError,
        match=r"momentum: expected a field of TrainingConfig \(augmentation, balance, batch_size, .*\), got no such",
    ):
        TrainingConfig.from_dict({"momentum": 0.9})
    with pytest.raises(ConfigError, match=r"weight_dcay: .*; did you mean weight_decay of TrainingConfig\?"):
        TrainingConfig.from_dict({"weight_dcay": 0.1})
    with pytest.raises(ConfigError, match=r"recipe: expected fields by name, got None"):
        TrainingConfig.from_dict(None)


def test_every_setting_of_the_objective_is_taken():
    settings = {
        "weights": {"dfa": 1, "cmc": 0.5},
        "margin": 0.5,
        "inter_weight": 0.1,
        "dfacc_on": "probability",
        "metric_loss": "vcc",
        "temperature": 0.1,
        "contrastive_targets": "same_label",
        "spa_batch_size": 8,
        "kl_direction": "reverse",
        "kl_detach": True,
        "label_smoothing": 0.1,
        "chunk_rows": 16,
        "gather": False,
    }
    arguments = set(inspect.signature(BMRLObjective).parameters) - {"config", "group"}
    assert set(settings) == arguments  # a new one belongs here
    assert TrainingConfig(objective=settings).objective == settings


def test_a_recipe_does_not_change_with_what_it_was_made_of():
    settings = {"margin": 0.5}
    recipe = TrainingConfig(objective=settings)
    settings["margin"] = -3
    assert recipe.objective == {"margin": 0.5}


def test_a_recipe_draws_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    TrainingConfig(objective={"spa_batch_size": 4})
    assert torch.equal(torch.get_rng_state(), before)
