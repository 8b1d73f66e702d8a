"""``bmrl train --set help``: every field that can be set, as it is set."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re

import pytest

from bmrl._fields import names_of
from bmrl.cli.main import main
from bmrl.cli.settings import setting, split_settings
from bmrl.losses import BMRLObjective
from bmrl.models import BMRLConfig
from bmrl.training import AugmentationConfig, TrainingConfig


@pytest.fixture
def listed(capsys):
    """The fields by name: type, default (None if there is none) and documentation."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--set", "help"])  # without --data and --out
    out, err = capsys.readouterr()
    assert err == ""
    found = re.findall(r"^  (\S+): (.+?)(?: \(default: (.*)\))?\n((?:      .+\n)*)", out, re.M)
    return {name: (kind, default, " ".join(text.split())) for name, kind, default, text in found}


def test_every_field_is_listed_with_its_documentation(listed):
    known = names_of(BMRLConfig, TrainingConfig)
    handed_over = {name for name in known["BMRLConfig"] if name.endswith(".module") or name.split(".")[0] == "views"}
    model = {name for name in known["BMRLConfig"] if not name.startswith("*.")} - handed_over
    model = {name for name in model if name.split(".")[0] != "generators"}
    objective = {f"objective.{name}" for name in inspect.signature(BMRLObjective).parameters} - {
        "objective.config",
        "objective.group",
    }
    recipe = {name for name in known["TrainingConfig"] if not name.startswith("*.")}
    assert set(listed) == model | recipe | objective
    assert [name for name, (_, _, text) in listed.items() if not text] == []
    assert not [text for _, _, text in listed.values() if "``" in text or ":class:" in text]


def test_defaults_are_those_of_the_dataclass_and_can_be_given_back(listed):
    names = [field.name for field in dataclasses.fields(TrainingConfig) if field.name != "augmentation"]
    names += [f"augmentation.{field.name}" for field in dataclasses.fields(AugmentationConfig)]
    recipe = {name: listed[name][1] for name in names}
    _, changes = split_settings(setting(f"{name}={default}") for name, default in recipe.items())
    assert TrainingConfig().with_changes(changes) == TrainingConfig()
    margin = listed["objective.margin"][1]
    assert json.loads(margin) == inspect.signature(BMRLObjective).parameters["margin"].default
    assert json.loads(listed["image_size"][1]) == 224
    assert listed["noise.encoder.final_pool"][1] == "true"


def test_types_name_choices_and_bounds(listed):
    assert listed["optimizer"][0] == "adam or adamw"
    assert listed["ema_decay"][0] == "number >= 0 and < 1"
    assert listed["objective.spa_batch_size"][0] == "integer, or null"


@pytest.mark.parametrize("name", ["*.num_blocks", "noise.encoder.dropout", "weight_decay", "objective.margin"])
def test_dotted_names_are_changes_of_what_they_name(name):
    model, recipe = split_settings([setting(f"{name}=.5")])
    if name == "objective.margin":
        assert (model, recipe) == ({}, {"objective": {"margin": 0.5}})
    else:
        assert (model, recipe) == (({}, {name: 0.5}) if name == "weight_decay" else ({name: 0.5}, {}))


def test_help_says_how_to_set_a_field(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--help"])
    assert "--set help lists" in " ".join(capsys.readouterr().out.split())


def test_a_field_of_the_model_is_refused_with_a_model(capsys, tmp_path):
    arguments = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "new"), "--model", "old"]
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*arguments, "--set", "weight_decay=0.1", "--set", "edge.num_heads=2"])
    assert "--set edge.num_heads: expected fields of the recipe alone with --model" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
