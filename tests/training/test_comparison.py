from __future__ import annotations

import dataclasses
import json

import pytest

from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, RangeError
from bmrl.training import comparison
from bmrl.training.comparison import FIGURES, _fold, compare, format_comparison
from bmrl.training.run import fit


def test_the_epochs_are_chosen_on_training_groups_alone(data, tmp_path, monkeypatch):
    fits = []

    def recording(task, train_set, val_set, **options):
        fits.append((train_set.rows, val_set.rows if val_set is not None else None))
        return fit(task, train_set, val_set, **options)

    monkeypatch.setattr(comparison, "fit", recording)
    compare(data, tmp_path, seeds=(0,), folds=2, max_epochs=1, contenders=("resnet18",), device="cpu")
    (train_0, val_0), (train_1, val_1), (whole, nothing) = fits
    paths = {row.path for row in Manifest.read(data).select(split="train", role="seen")}
    assert nothing is None
    assert {row.path for row in whole} == paths
    assert {row.path for row in (*val_0, *val_1)} == paths
    for train_rows, val_rows in ((train_0, val_0), (train_1, val_1)):
        assert {row.path for row in (*train_rows, *val_rows)} == paths
        assert not {row.group for row in train_rows} & {row.group for row in val_rows}


def test_writes_what_it_returns(data, tmp_path):
    results = compare(
        data, tmp_path / "out", seeds=(0, 1), folds=2, max_epochs=2, contenders=("resnet18",), device="cpu"
    )
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["contenders"] == results
    entry = results["resnet18"]
    assert len(entry["curve"]) == 2
    assert entry["epochs"] == 1 + entry["curve"].index(max(entry["curve"]))
    assert len(entry["runs"]) == 2
    assert all(set(run) == set(FIGURES) and 0 <= min(run.values()) <= max(run.values()) <= 1 for run in entry["runs"])
    table = format_comparison(results).splitlines()
    assert len(table) == 2
    assert table[1].startswith("resnet18")


def test_a_fold_is_decided_by_the_group(data):
    rows = Manifest.read(data).rows
    assert {_fold(row, 3) for row in rows} == {0, 1, 2}
    moved = dataclasses.replace(rows[0], path="elsewhere.png", generator="other")
    assert _fold(moved, 3) == _fold(rows[0], 3)


def test_rejects_bad_arguments(data, tmp_path):
    with pytest.raises(RangeError, match="folds: expected an integer >= 2, got 1"):
        compare(data, tmp_path, folds=1)
    with pytest.raises(ConfigError, match="seeds: expected at least one, got none"):
        compare(data, tmp_path, seeds=())
    with pytest.raises(RangeError, match="contenders: expected 'bmrl' or 'resnet18', got 'vgg'"):
        compare(data, tmp_path, contenders=("vgg",))
