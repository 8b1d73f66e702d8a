"""Settings of ``bmrl train --set``: each is checked by name, type and range before a folder is made."""

from __future__ import annotations

import pytest

from bmrl.cli.main import main
from bmrl.cli.settings import setting, split_settings
from bmrl.errors import ConfigError
from bmrl.training import train

REFUSED = {
    "objective.margn=2": "objective.margn: expected a field of BMRLObjective, got no such; did you mean objective.mar",
    "objective.margin=abc": "objective.margin: expected a finite number, got 'abc'",
    "objective.weights=3": "objective.weights: expected a mapping from names to values, got 3",
    "objective.weights.dfa=3": "objective.weights.dfa: expected a field of BMRLObjective",
    "objective.kl_detach=1": "objective.kl_detach: expected true or false, got 1",
    "objective.group=3": "objective.group: expected a field of BMRLObjective",
    "objective=3": "objective: expected a mapping from names to values, got 3",
    "head.dropout=abc": "head.dropout: expected a finite number >= 0 and < 1, got 'abc'",
    "weight_decay=abc": "weight_decay: expected a finite number >= 0, got 'abc'",
    "weight_decay=NaN": "weight_decay: expected a finite number >= 0, got nan",
    "weight_decay=-Infinity": "weight_decay: expected a finite number >= 0, got -inf",
    "learning_rate=1e999": "learning_rate: expected a finite number > 0, got inf",
    "learning_rate=[0.1]": "learning_rate: expected a finite number > 0, got list",
    "noise.truncation=abc": "noise.truncation: expected a finite number > 0, got 'abc'",
    'decision.thresholds=["a"]': "decision.thresholds[0]: expected a finite number > 0 and < 1, got 'a'",
    "decision.thresholds=0.5": "decision.thresholds: expected a list, got 0.5",
    'generators=[{"name": "a"}]': "generators: expected no such change",
    "epochs=true": "epochs: expected an integer >= 1, got True",
    "epochs=2.0": "epochs: expected an integer >= 1, got 2.0",
    f"epochs={'9' * 5000}": "epochs: expected an integer >= 1, got inf",
    f"epochs={'[' * 100_000}": "epochs: expected an integer >= 1, got '[[[",
    "edge=maybe": "CustomConfig, or fields by name, got 'maybe'",
    "edge=false": "CustomConfig, or fields by name, got False",
    "decision=null": "decision: expected a DecisionConfig, got None",
    "*.num_blocks=0": "appearance.num_blocks: expected an integer >= 1, got 0",
    "edge.num_blcks=1": "got no such; did you mean edge.num_blocks of BMRLConfig?",
    "num_blocks=1": "got no such; did you mean *.num_blocks of BMRLConfig?",
    "edge.kind=vit": "edge.kind: expected 'conv_transformer' or ",
    "views.a=1": "views.a: expected a field of BMRLConfig",
    "shift=0.5": "shift: expected an integer >= 0, got 0.5",
    "shift=500": "shift: expected less than image_size 128, got 500",
    "seed=1.5": "seed: expected an integer >= 0, got 1.5",
    "seed=99999999999999999999": "seed: expected an integer >= 0 and <= 9223372036854775807, got 99999999999999999999",
    "edge.channels={}": "edge.channels: expected a list, got dict",
    "edge.token_patch=true": "edge.token_patch: expected 'all' or 1, got True",
    "weight_dcay=.1": "got no such; did you mean weight_decay of TrainingConfig?",
    "num_head=2": "got no such; did you mean *.num_heads of BMRLConfig?",
    "zzz=1": "zzz: expected a field of BMRLConfig (appearance, ",
    "=1": "'': expected a field of BMRLConfig (appearance, ",
}


@pytest.mark.parametrize("setting", REFUSED, ids=lambda setting: setting[:30])
def test_a_setting_that_does_not_fit(data, tmp_path, capsys, setting):
    out = tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(out), "--set", setting]) == 1
    error = capsys.readouterr().err
    assert error.startswith("bmrl: error: ")
    assert error.count("\n") == 1
    assert REFUSED[setting] in error
    assert not out.exists()


def test_a_whole_objective_and_parts_of_it():
    settings = [setting(text) for text in ('objective={"margin": 1, "temperature": 0.1}', "objective.margin=.5")]
    assert split_settings(settings) == ({}, {"objective": {"margin": 0.5, "temperature": 0.1}})
    with pytest.raises(ConfigError, match=r"objective: expected a mapping from names to values, got 3"):
        split_settings([("objective", 3), ("objective.margin", 1)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_changes": {"weight_decay": 0.1}}, r"weight_decay: .* got one that belongs in recipe_changes"),
        ({"recipe_changes": {"edge": False}}, r"edge: .* got one that belongs in model_changes"),
        ({"recipe_changes": {"edgee": False}}, r"edgee: .*; did you mean edge of BMRLConfig\?"),
        ({"model_changes": {"generators": []}}, r"generators: expected no such change"),
        ({"model_changes": 3}, r"model_changes: expected fields by name, got int"),
        ({"recipe_changes": ["epochs"]}, r"recipe_changes: expected fields by name, got list"),
    ],
)
def test_changes_from_python(data, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        train(data, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
