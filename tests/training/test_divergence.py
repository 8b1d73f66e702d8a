"""Trainings that arrive at values that are not finite: said where, never taken for finished, nothing lost."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DivergenceError
from bmrl.evaluation import comparison
from bmrl.evaluation.comparison import compare, train_resnet18
from bmrl.models import build_model
from bmrl.models.presets import tiny
from bmrl.training import BMRLTask, TrainingConfig, train
from bmrl.training.baselines.resnet18 import ResNet18Task, resnet18_recipe

POISONS = ("loss", "gradient", "weight", "running variance", "validation", "answer")


def poison(monkeypatch, what, *, epoch, step=0, value=float("nan"), task=BMRLTask):
    """Make one value of one step wrong."""

    def now(self, batch_idx):
        return self.current_epoch == epoch and batch_idx == step

    if what in ("loss", "gradient"):
        original = task.training_step

        def training_step(self, batch):
            total = original(self, batch)
            if not now(self, self.trainer.fit_loop.epoch_loop.batch_idx):
                return total
            if what == "loss":
                return total * value
            total.register_hook(lambda gradient: gradient * value)
            return total

        monkeypatch.setattr(task, "training_step", training_step)
    elif what in ("weight", "running variance", "answer"):

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if now(self, batch_idx):
                names = dict(
                    self.model.named_parameters() if what != "running variance" else self.model.named_buffers()
                )
                key = next(name for name in names if what == "weight" or "running_var" in name or what == "answer")
                with torch.no_grad():
                    if what == "answer":  # finite weights, infinite answers
                        for parameter in self.model.parameters():
                            parameter.mul_(1e30)
                    else:
                        names[key].fill_(value)

        monkeypatch.setattr(task, "on_train_batch_end", on_train_batch_end)
    else:
        original = task.validation_step

        def validation_step(self, batch):
            if self.current_epoch != epoch:
                return original(self, batch)
            handle = self.model.head.register_forward_hook(lambda *_: torch.full((len(batch["label"]), 3), value))
            try:
                return original(self, batch)
            finally:
                handle.remove()

        monkeypatch.setattr(task, "validation_step", validation_step)


def kept(folder):
    return {
        name: torch.load(folder / "checkpoints" / name, weights_only=True)["epoch"]
        for name in ("last.ckpt", "best.ckpt")
    }


@pytest.mark.parametrize(
    ("what", "value"),
    [*((what, float("nan")) for what in POISONS), ("validation", float("-inf")), ("weight", float("inf"))],
)
def test_one_wrong_value_at_the_last_step_ends_the_run(data, runs, tmp_path, monkeypatch, what, value):
    poison(monkeypatch, what, epoch=1, step=2, value=value)
    options = {"model_changes": runs.plain, "recipe_changes": runs.brisk | {"epochs": 2}, "device": "cpu"}
    with pytest.raises(DivergenceError) as error:
        train(data, tmp_path / "run", progress=False, **options)
    text = str(error.value)
    assert text.startswith("learning_rate: expected a training that stays finite, got ")
    assert "in epoch 2 of 2, step 3 of 3, at a rate of 0.0008; start a new run with a lower one" in text
    assert "(weights: those of the last finite epochs are in checkpoints)" in text
    assert "\n" not in text
    assert not (tmp_path / "run" / "config.json").exists()
    assert kept(tmp_path / "run") == {"last.ckpt": 0, "best.ckpt": 0}
    monkeypatch.undo()
    with pytest.raises(DivergenceError, match=r"diverged.txt: learning_rate: expected a training that stays finite"):
        train(data, tmp_path / "run", resume=True, device="cpu", progress=False)
    with pytest.raises(ConfigError, match="out: expected a new or empty folder"):
        train(data, tmp_path / "run", progress=False, **options)
    (tmp_path / "run" / "diverged.txt").unlink()
    train(data, tmp_path / "run", resume=True, device="cpu", progress=False)
    assert (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("rate", "epochs", "precision", "decay"),
    [(1e30, 1, "32-true", 0.0), (1e30, 3, "bf16-mixed", 0.5), (1e6, 1, "bf16-mixed", 0.0), (1e6, 3, "32-true", 0.5)],
)
def test_a_rate_that_is_far_too_high(data, runs, tmp_path, rate, epochs, precision, decay):
    changes = runs.brisk | {"learning_rate": rate, "epochs": epochs, "precision": precision, "ema_decay": decay}
    with pytest.raises(
        DivergenceError, match=rf"in epoch 1 of {epochs}, step . of 3, at a rate of {re.escape(f'{rate:g}')}; start"
    ):
        train(data, tmp_path / "run", model_changes=runs.plain, recipe_changes=changes, device="cpu", progress=False)
    assert not (tmp_path / "run" / "config.json").exists()
    assert "weights: none are kept" in (tmp_path / "run" / "diverged.txt").read_text()


def test_every_branch_diverges_alike(data, small, tmp_path):
    changes = {"learning_rate": 1e30, "epochs": 2, "batch_size": 8, "precision": "32-true"}
    with pytest.raises(DivergenceError, match=r"in epoch 1 of 2, step . of 3, at a rate of 1e\+30"):
        train(data, tmp_path / "run", model_changes=small, recipe_changes=changes, device="cpu", progress=False)


def test_without_validation_images(data, runs, tmp_path):
    manifest = Manifest.read(data)
    rows = tuple(row for row in manifest.rows if row.split != "val")
    for row in rows:
        (tmp_path / "data" / row.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / row.path).symlink_to(data / row.path)
    Manifest(tmp_path / "data", rows).write()
    changes = runs.brisk | {"learning_rate": 1e30, "epochs": 1, "batch_size": 24}  # one step: no loss comes after it
    with pytest.raises(DivergenceError, match=r"in epoch 1 of 1, step 1 of 1, at a rate of 1e\+30"):
        train(
            tmp_path / "data",
            tmp_path / "run",
            model_changes=runs.plain,
            recipe_changes=changes,
            device="cpu",
            progress=False,
        )
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("steps", [1, 3])
def test_the_baseline_diverges_alike(data, steps):
    manifest = Manifest.read(data)
    config = tiny(generators=manifest.generators("seen"), image_size=32)
    recipe = resnet18_recipe(epochs=1, learning_rate=1e30, batch_size=24 // steps, precision="32-true")
    with pytest.raises(DivergenceError, match=rf"in epoch 1 of 1, step . of {steps}, at a rate of 1e\+30"):
        train_resnet18(manifest, config, recipe, device="cpu", progress=False)


def test_an_average_that_is_not_finite_is_kept_by_nobody(data, monkeypatch):
    def spoil(self, trainer, task):
        for parameter in task.parameters():
            parameter.data.fill_(float("nan"))

    monkeypatch.setattr(EMAWeightAveraging, "on_train_end", spoil)
    manifest = Manifest.read(data)
    config = tiny(generators=manifest.generators("seen"), image_size=32)
    recipe = resnet18_recipe(epochs=1, ema_decay=0.5, precision="32-true")
    with pytest.raises(DivergenceError, match="got a weight of nan in epoch 1 of 1"):
        train_resnet18(manifest, config, recipe, device="cpu", progress=False)


def test_compare_says_who_diverged(data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(comparison, "resnet18_recipe", lambda: resnet18_recipe(learning_rate=1e30))
    with caplog.at_level(logging.WARNING), pytest.raises(DivergenceError, match=r"^resnet18: learning_rate: expected"):
        compare(data, tmp_path, seeds=(0,), folds=2, max_epochs=1, methods=("resnet18",), device="cpu")
    assert not (tmp_path / "comparison.json").exists()


def test_large_gradients_are_no_divergence(data, runs, tmp_path, monkeypatch):
    """Their squares overflow; Adam divides by the root of those, and all that counts stays finite."""
    poison(monkeypatch, "gradient", epoch=0, value=1e25)
    changes = runs.brisk | {"epochs": 1}
    train(data, tmp_path / "run", model_changes=runs.plain, recipe_changes=changes, device="cpu", progress=False)
    assert (tmp_path / "run" / "config.json").exists()


def test_the_check_of_the_answers_leaves_the_modes_as_they_are(data, runs):
    manifest = Manifest.read(data)
    config = tiny(generators=manifest.generators("seen"), **runs.plain)
    task = BMRLTask(build_model(config), TrainingConfig())
    task.model.head.eval()
    before = [module.training for module in task.model.modules()]
    state = {name: value.clone() for name, value in task.state_dict().items()}
    task.check_answers(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert [module.training for module in task.model.modules()] == before
    assert all(torch.equal(state[name], value) for name, value in task.state_dict().items())
    assert ResNet18Task.check_answers is BMRLTask.check_answers
