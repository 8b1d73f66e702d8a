from __future__ import annotations

import dataclasses
import json

import pytest

from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DataError, MissingExtraError, RangeError
from bmrl.evaluation import compare as comparison
from bmrl.evaluation.compare import FIGURES, _fold, compare, format_comparison
from bmrl.models.presets import tiny
from bmrl.training.recipes import tiny as tiny_recipe
from bmrl.training.run import fit

SMALLER = {
    "image_size": 64,
    "embed_dim": 16,
    "*.channels": (4, 8, 8),
    "*.convs_per_stage": (1, 1, 1),
    "*.mlp_dim": 16,
    "*.num_blocks": 1,
}


@pytest.fixture(autouse=True)
def smaller(monkeypatch):
    """Make the preset smaller still."""
    monkeypatch.setattr(comparison, "PRESETS", {"tiny": (lambda **changes: tiny(**changes, **SMALLER), tiny_recipe)})


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


def test_compares_bmrl_with_the_baseline_unless_told_otherwise(data, tmp_path, monkeypatch):
    fits = []

    def recording(task, train_set, val_set, **options):
        fits.append((type(task).__name__, task.recipe, train_set.num_parsing, task.model.training))
        return fit(task, train_set, val_set, **options)

    monkeypatch.setattr(comparison, "fit", recording)
    results = compare(data, tmp_path, seeds=(4,), folds=2, max_epochs=1, device="cpu")
    assert list(results) == ["bmrl", "resnet18"]
    assert [len(entry["runs"]) for entry in results.values()] == [1, 1]
    assert [name for name, *_ in fits] == ["BMRLTask"] * 3 + ["ResNet18Task"] * 3
    assert [recipe.seed for _, recipe, *_ in fits] == [0, 1, 4] * 2
    assert {(recipe.epochs, recipe.keep) for _, recipe, *_ in fits} == {(1, "last")}
    assert {recipe.optimizer for _, recipe, *_ in fits[:3]} == {"adamw"}
    assert {recipe.optimizer for _, recipe, *_ in fits[3:]} == {"adam"}
    assert all(maps for *_, maps, _ in fits[:3])  # BMRL learns from the parsing maps, the baseline knows none
    assert not any(maps for *_, maps, _ in fits[3:])


def test_the_first_of_the_best_epochs_is_chosen(data, tmp_path, monkeypatch):
    curves = iter([[0.2, 0.9, 0.9, 0.1], [0.4, 0.7, 0.7, 0.3]])
    epochs = []

    def recording(task, train_set, val_set, *, callbacks=(), **options):
        epochs.append(task.recipe.epochs)
        for callback in callbacks:
            callback.accuracies = next(curves)
        task.eval()

    monkeypatch.setattr(comparison, "fit", recording)
    results = compare(data, tmp_path, seeds=(0, 1), folds=2, max_epochs=4, contenders=("resnet18",), device="cpu")
    assert results["resnet18"]["epochs"] == 2
    assert results["resnet18"]["curve"] == pytest.approx([0.3, 0.8, 0.8, 0.2])
    assert epochs == [4, 4, 2, 2]


def test_an_earlier_comparison_is_replaced_after_each_contender(data, tmp_path, monkeypatch):
    (tmp_path / "comparison.json").write_text("earlier")
    (tmp_path / "notes.txt").write_text("mine")
    options = {"seeds": (0,), "folds": 2, "max_epochs": 1, "device": "cpu"}

    def interrupted(name, *arguments, **more):
        if name == "bmrl":
            raise KeyboardInterrupt
        return contend(name, *arguments, **more)

    contend = comparison._contend
    monkeypatch.setattr(comparison, "_contend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(data, tmp_path, contenders=("resnet18", "bmrl"), **options)
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert list(written["contenders"]) == ["resnet18"]
    assert written["data"] == str(data)
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.json", "notes.txt"}


def test_each_group_is_held_out_once(data):
    manifest = Manifest.read(data)
    splits = comparison._folds(manifest, 3)
    held_out = [row.path for split in splits for row in split.rows if row.split == "val"]
    assert sorted(held_out) == sorted(row.path for row in manifest.select(split="train", role="seen"))


def test_a_package_that_is_missing_is_noticed_first(data, tmp_path, monkeypatch):
    def missing(config):
        raise MissingExtraError("torchvision", "train")

    monkeypatch.setattr(comparison, "ResNet18", missing)
    monkeypatch.setattr(comparison, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(MissingExtraError, match="torchvision: not installed"):
        compare(data, tmp_path / "out", device="cpu")


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
    with pytest.raises(ConfigError, match="seeds: expected each once, got 1 0 1"):
        compare(data, tmp_path, seeds=(1, 0, 1))
    with pytest.raises(ConfigError, match="contenders: expected each once, got bmrl bmrl"):
        compare(data, tmp_path, contenders=("bmrl", "bmrl"))
    for contenders in ((), "bmrl"):
        with pytest.raises(ConfigError, match="contenders: expected a sequence of names, got"):
            compare(data, tmp_path, contenders=contenders)
    with pytest.raises(RangeError, match="device: expected 'auto' or 'cpu' or 'gpu', got 'abacus'"):
        compare(data, tmp_path, device="abacus")


def test_all_is_checked_before_the_first_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "fit", lambda *_, **__: pytest.fail("trained"))
    for options, field in (({"seeds": (0, -1)}, "seed"), ({"max_epochs": 0}, "epochs")):
        with pytest.raises(ConfigError, match=f"{field}: expected"):
            compare(data, tmp_path / "out", **options)
    with pytest.raises(RangeError, match="folds: expected a training group in each of 500 folds, got none in one"):
        compare(data, tmp_path / "out", folds=500)
    manifest = Manifest.read(data)
    no_test = Manifest(tmp_path, tuple(row for row in manifest.rows if row.split != "test"))
    no_test.write()
    with pytest.raises(DataError, match="expected test images of seen generators, got none"):
        compare(tmp_path, tmp_path / "out")
    one_group = [
        dataclasses.replace(row, group="studio") if row.generator == "camera" and row.split == "train" else row
        for row in manifest.rows
    ]
    Manifest(tmp_path, tuple(one_group)).write()
    with pytest.raises(RangeError, match="folds: expected groups of every seen generator outside each of 2 folds, got"):
        compare(tmp_path, tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()
