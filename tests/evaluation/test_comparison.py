from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bmrl.data.manifest import Manifest
from bmrl.errors import BMRLError, ConfigError, DataError, MissingExtraError, RangeError
from bmrl.evaluation import _cross_validation, comparison
from bmrl.evaluation._cross_validation import _fold, split_into_folds
from bmrl.evaluation.comparison import Comparison, MethodResult, compare, format_comparison
from bmrl.models.presets import tiny
from bmrl.training.fitting import fit
from bmrl.training.recipes import tiny as tiny_recipe

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


def replace_fit(monkeypatch, function):
    for module in (comparison, _cross_validation):
        monkeypatch.setattr(module, "fit", function)


def test_the_epochs_are_chosen_on_training_groups_alone(data, tmp_path, monkeypatch):
    fits = []

    def recording(task, train_set, val_set, **options):
        fits.append((train_set.rows, val_set.rows if val_set is not None else None))
        return fit(task, train_set, val_set, **options)

    replace_fit(monkeypatch, recording)
    compare(data, tmp_path, seeds=(0,), folds=2, max_epochs=1, methods=("resnet18",), device="cpu")
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

    replace_fit(monkeypatch, recording)
    found = compare(data, tmp_path, seeds=(4,), folds=2, max_epochs=1, device="cpu")
    assert list(found.methods) == ["bmrl", "resnet18"]
    assert [len(method.runs) for method in found.methods.values()] == [1, 1]
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

    replace_fit(monkeypatch, recording)
    found = compare(data, tmp_path, seeds=(0, 1), folds=2, max_epochs=4, methods=("resnet18",), device="cpu")
    assert found.methods["resnet18"].epochs == 2
    assert found.methods["resnet18"].curve == pytest.approx([0.3, 0.8, 0.8, 0.2])
    assert epochs == [4, 4, 2, 2]


def test_an_earlier_comparison_is_replaced_after_each_method(data, tmp_path, monkeypatch):
    (tmp_path / "comparison.json").write_text("earlier")
    (tmp_path / "notes.txt").write_text("mine")
    options = {"seeds": (0,), "folds": 2, "max_epochs": 1, "device": "cpu"}

    def interrupted(name, *arguments, **more):
        if name == "bmrl":
            raise KeyboardInterrupt
        return run_method(name, *arguments, **more)

    run_method = comparison._run_method
    monkeypatch.setattr(comparison, "_run_method", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(data, tmp_path, methods=("resnet18", "bmrl"), **options)
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert list(written["methods"]) == ["resnet18"]
    assert written["data"] == str(data)
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.json", "notes.txt"}


def test_each_group_is_held_out_once(data):
    manifest = Manifest.read(data)
    splits = split_into_folds(manifest, 3)
    held_out = [row.path for split in splits for row in split.rows if row.split == "val"]
    assert sorted(held_out) == sorted(row.path for row in manifest.select(split="train", role="seen"))


def test_a_package_that_is_missing_is_noticed_first(data, tmp_path, monkeypatch):
    def missing(config):
        raise MissingExtraError("torchvision", "train")

    monkeypatch.setattr(comparison, "ResNet18", missing)
    replace_fit(monkeypatch, lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(MissingExtraError, match="torchvision: not installed"):
        compare(data, tmp_path / "out", device="cpu")


def test_writes_what_it_returns(data, tmp_path):
    out = tmp_path / "out"
    found = compare(data, out, seeds=(0, 1), folds=2, max_epochs=2, methods=("resnet18",), device="cpu")
    assert json.loads((out / "comparison.json").read_text()) == found.to_dict()
    assert found.folder == out
    assert list(found.to_dict()) == ["data", "preset", "folds", "seeds", "methods"]
    assert (found.data, found.preset, found.folds, found.seeds) == (data, "tiny", 2, (0, 1))
    method = found.methods["resnet18"]
    assert len(method.curve) == 2
    assert method.epochs == 1 + method.curve.index(max(method.curve))
    assert len(method.runs) == 2
    names = {"accuracy", "balanced_accuracy", "auroc", "fpr95", "oscr", "seen_acceptance@0.7", "unseen_rejection@0.9"}
    for run in method.runs:
        assert names <= set(run)
        assert 0 <= min(run.values()) <= max(run.values()) <= 1


def test_the_table_has_a_line_per_metric_with_mean_and_range():
    runs = [{"accuracy": 0.5, "auroc": None}, {"accuracy": 0.75, "auroc": None}]
    methods = {
        "bmrl": MethodResult(epochs=12, curve=[], runs=runs),
        "resnet18": MethodResult(epochs=8, curve=[], runs=[{"accuracy": 0.25, "auroc": 0.6}]),
    }
    made = Comparison(folder=Path(), data=Path(), preset="tiny", folds=2, seeds=(0, 1), methods=methods)
    assert format_comparison(made).splitlines() == [
        "                   bmrl                 resnet18",
        "Epochs             12                   8",
        "Seen accuracy      62.5% (50.0%-75.0%)  25.0% (25.0%-25.0%)",
        "AUROC seen/unseen  -                    60.0% (60.0%-60.0%)",
    ]


def test_a_fold_is_decided_by_the_group(data):
    rows = Manifest.read(data).rows
    assert {_fold(row, 3) for row in rows} == {0, 1, 2}
    moved = dataclasses.replace(rows[0], path="elsewhere.png", generator="other")
    assert _fold(moved, 3) == _fold(rows[0], 3)


def test_rejects_bad_arguments(data, tmp_path):
    with pytest.raises(RangeError, match=r"^folds: expected .* >= 2, got 1"):
        compare(data, tmp_path, folds=1)
    with pytest.raises(ConfigError, match="seeds: expected at least one, got none"):
        compare(data, tmp_path, seeds=())
    with pytest.raises(RangeError, match=r"^methods: expected .*'resnet18', got 'vgg'"):
        compare(data, tmp_path, methods=("vgg",))
    with pytest.raises(ConfigError, match="seeds: expected each once, got 1 0 1"):
        compare(data, tmp_path, seeds=(1, 0, 1))
    with pytest.raises(ConfigError, match="methods: expected each once, got bmrl bmrl"):
        compare(data, tmp_path, methods=("bmrl", "bmrl"))
    for methods in ((), "bmrl"):
        with pytest.raises(ConfigError, match=r"^methods: expected .*names, got"):
            compare(data, tmp_path, methods=methods)
    with pytest.raises(BMRLError, match=r"^device: expected .*, got 'abacus'"):
        compare(data, tmp_path, device="abacus")


def test_all_is_checked_before_the_first_training(data, tmp_path, monkeypatch):
    replace_fit(monkeypatch, lambda *_, **__: pytest.fail("trained"))
    for options, field in (({"seeds": (0, -1)}, "seed"), ({"max_epochs": 0}, "epochs")):
        with pytest.raises(ConfigError, match=f"{field}: expected"):
            compare(data, tmp_path / "out", **options)
    with pytest.raises(RangeError, match=r"^folds: expected .* 500 folds, got none"):
        compare(data, tmp_path / "out", folds=500)
    manifest = Manifest.read(data)
    no_test = Manifest(tmp_path, tuple(row for row in manifest.rows if row.split != "test"))
    no_test.write()
    with pytest.raises(DataError, match=r"expected test images .*, got none"):
        compare(tmp_path, tmp_path / "out")
    one_group = [
        dataclasses.replace(row, group="studio") if row.generator == "camera" and row.split == "train" else row
        for row in manifest.rows
    ]
    Manifest(tmp_path, tuple(one_group)).write()
    with pytest.raises(RangeError, match=r"^folds: expected .* 2 folds, got"):
        compare(tmp_path, tmp_path / "out", folds=2)
    assert not (tmp_path / "out").exists()
