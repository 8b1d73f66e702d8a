from __future__ import annotations

import copy
import csv
import functools
import json
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.data import default_collate

from bmrl.data.dataset import FaceDataset
from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DataError, DeviceError, MissingFileError, RangeError
from bmrl.models import build_model, load_model
from bmrl.models.presets import tiny
from bmrl.training import BMRLTask, TrainingConfig, loading, train
from bmrl.training.hardware import resolve_precision
from bmrl.training.loading import load_split

if TYPE_CHECKING:
    from pathlib import Path

FAST = {"epochs": 2, "batch_size": 8, "precision": "32-true"}


def metrics(folder: Path) -> dict[int, dict[str, str]]:
    """The training metrics of each epoch, of all starts of the run."""
    found: dict[int, dict[str, str]] = {}
    for file in sorted(folder.glob("log/version_*/metrics.csv")):
        for row in csv.DictReader(file.open()):
            if row.get("train_loss"):
                found[int(row["epoch"])] = {name: value for name, value in row.items() if name.startswith("train")}
    return found


def test_trains_every_branch_and_writes_a_model_folder(data, small, tmp_path):
    run = train(data, tmp_path / "run", model_changes=small, recipe_changes=FAST, device="cpu", progress=False)
    assert run.parsing
    assert run.skipped == ()
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "objective.safetensors", "training.json", "checkpoints", "log"}
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    model = load_model(run.folder)
    assert [generator.name for generator in model.config.generators] == ["camera", "noise", "stripes"]
    logged = metrics(run.folder)
    assert sorted(logged) == [0, 1]
    parts = {"train_dfa", "train_dfacc", "train_cmc", "train_cpc", "train_kl", "train_loss", "train_accuracy"}
    assert set(logged[0]) == parts
    assert float(logged[1]["train_loss"]) == pytest.approx(
        sum(float(logged[1][f"train_{part}"]) for part in ("dfa", "dfacc", "cmc", "cpc", "kl")), rel=1e-5
    )
    assert set(run.metrics) == parts | {"val_loss", "val_accuracy"}
    assert {name: run.metrics[name] for name in parts} == {name: float(logged[1][name]) for name in parts}


@pytest.mark.parametrize(("has_amx", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_automatic_precision_is_bf16_where_a_cpu_multiplies_it(monkeypatch, has_amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == expected
    assert resolve_precision("bf16-mixed", cpu) == "bf16-mixed"
    assert resolve_precision("auto", torch.device("mps")) == "32-true"


def test_learns(data, small, tmp_path):
    recipe = FAST | {"epochs": 30, "learning_rate": 3e-3, "ema_decay": 0.8}
    run = train(data, tmp_path / "run", model_changes=small, recipe_changes=recipe, device="cpu", progress=False)
    assert float(metrics(run.folder)[29]["train_accuracy"]) > 0.9


def test_same_seed_same_model_and_another_seed_another(data, small, tmp_path):
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        recipe = FAST | {"epochs": 1, "seed": seed}
        return load_model(
            train(
                data, tmp_path / name, model_changes=small, recipe_changes=recipe, device="cpu", progress=False
            ).folder
        ).state_dict()

    first, again, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.2.weight"], other["head.2.weight"])


def test_each_start_has_its_log(data, runs, tmp_path):
    recipe = runs.brisk | {"epochs": 2}
    out = tmp_path / "run"
    train(data, out, model_changes=runs.plain, recipe_changes=recipe, device="cpu", progress=False)
    header, *rows = (out / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    assert header == "epoch,step,train_accuracy,train_dfa,train_dfacc,train_loss,val_accuracy,val_loss"
    assert [row.split(",")[:2] for row in rows] == [["0", "2"], ["0", "2"], ["1", "5"], ["1", "5"]]
    settings = json.loads((out / "training.json").read_text())
    assert settings["recipe"]["epochs"] == 2
    assert settings["model"]["image_size"] == 64
    (out / "config.json").unlink()
    (out / "log" / "version_7").mkdir()
    (out / "log" / "version_x").mkdir()
    train(data, out, resume=True, device="cpu", progress=False)
    assert load_model(out).config.image_size == 64


def test_validation_figures_are_those_of_the_kept_weights(data, runs, tmp_path):
    recipe = runs.brisk | {"epochs": 2, "keep": "last"}
    out = tmp_path / "run"
    train(data, out, model_changes=runs.plain, recipe_changes=recipe, device="cpu", progress=False)
    rows = csv.DictReader((out / "log" / "version_0" / "metrics.csv").open())
    logged = [row for row in rows if row["val_loss"]][-1]
    model = load_model(out)
    samples = load_split(Manifest.read(data), model.config, "val")
    assert samples.num_parsing == 0  # the maps of validation images are not read
    batch = default_collate([samples[index] for index in range(len(samples))])
    with torch.no_grad():
        logits = model(batch["image"]).logits
    right = -logits.log_softmax(dim=1)[torch.arange(len(samples)), batch["label"]].mean()
    assert float(logged["val_loss"]) == pytest.approx(float(right), rel=1e-4)
    assert float(logged["val_accuracy"]) == pytest.approx(float((logits.argmax(1) == batch["label"]).float().mean()))


def test_a_run_says_what_it_arrived_at(data, runs, tmp_path):
    recipe = runs.brisk | {"epochs": 6, "learning_rate": 0.05}  # a rate that makes the loss rise again
    out = tmp_path / "run"
    run = train(data, out, model_changes=runs.plain, recipe_changes=recipe, device="cpu", progress=False)
    checkpoint = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)
    assert run.best_epoch == checkpoint["epoch"] + 1
    rows = list(csv.DictReader((out / "log" / "version_0" / "metrics.csv").open()))
    losses = [float(row["val_loss"]) for row in rows if row["val_loss"]]
    assert losses[run.best_epoch - 1] == min(losses)
    assert (run.epochs, run.metrics["val_loss"]) == (6, losses[-1])
    assert json.loads(json.dumps(run.to_dict())) == {
        "folder": str(out), "skipped": [], "parsing": False, "epochs": 6, "best_epoch": run.best_epoch,
        "metrics": run.metrics,
    }  # fmt: skip
    (out / "log" / "version_1").mkdir()
    (out / "log" / "version_1" / "metrics.csv").write_text("changed,since\n1,2\n")
    assert train(data, out, resume=True, device="cpu", progress=False) == run
    shutil.rmtree(out / "log")
    bare = train(data, out, resume=True, device="cpu", progress=False)
    assert (bare.epochs, bare.best_epoch, bare.metrics) == (6, None, {})


def test_parsing_maps_missing(data_without_parsing, small, tmp_path, caplog):
    run = train(
        data_without_parsing, tmp_path / "run", model_changes=small, recipe_changes=FAST, device="cpu", progress=False
    )
    assert not run.parsing
    assert "no parsing maps found; the parsing branch is off" in caplog.text
    assert load_model(run.folder).config.parsing is None
    assert "train_cpc" not in metrics(run.folder)[0]


def test_unreadable_images_are_skipped_and_listed(data_without_parsing, small, tmp_path, caplog):
    (data_without_parsing / "noise" / "train_0.png").write_text("no image")
    run = train(
        data_without_parsing, tmp_path / "run", model_changes=small, recipe_changes=FAST, device="cpu", progress=False
    )
    ((path, reason),) = run.skipped
    assert path == "noise/train_0.png"
    assert reason
    assert "noise/train_0.png" in caplog.text


def test_images_that_are_lost_during_the_training_are_listed(data_without_parsing, small, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "FaceDataset", functools.partial(FaceDataset, cache=False))
    damaged = data_without_parsing / "noise" / "train_0.png"
    damaged.write_bytes(damaged.read_bytes()[:-2000])  # its header is read before the training
    run = train(
        data_without_parsing, tmp_path / "run", model_changes=small, recipe_changes=FAST, device="cpu", progress=False
    )
    assert [path for path, _ in run.skipped] == ["noise/train_0.png"]


def test_a_killed_run_resumes_with_the_losses_of_an_uninterrupted_one(data, small, runs, run_code, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = {"model": small | {"*.dropout": 0.2}, "epochs": 3, "ema_decay": 0.8}
    assert run_code(runs.call(data, whole, **settings)).wait() == 0

    process = run_code(runs.call(data, killed, **settings))
    process.wait_for((killed / "checkpoints" / "last.ckpt").is_file)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()

    assert run_code(runs.call(data, killed, resume=True)).wait() == 0
    resumed = metrics(killed)
    expected = metrics(whole)
    assert sorted(expected) == list(range(3))
    assert {epoch: expected[epoch] for epoch in resumed} == resumed
    assert 2 in resumed
    assert runs.same(whole, killed)


def test_resuming_a_finished_run_leaves_it_alone(data, small, tmp_path):
    out = tmp_path / "run"
    first = train(data, out, model_changes=small, recipe_changes=FAST, device="cpu", progress=False)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train(data, out, resume=True, device="cpu", progress=False) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_refuses_a_folder_that_is_not_empty(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"out: expected a new or empty folder, got .*"):
        train(data, tmp_path, progress=False)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"\(give --resume to continue the run in it\)"):
        train(data, tmp_path, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_refuses_to_resume_what_is_not_there_or_does_not_fit(data, small, tmp_path):
    with pytest.raises(MissingFileError, match=r"out: expected a run to resume with .*training.json, got no such file"):
        train(data, tmp_path / "none", resume=True)
    out = tmp_path / "run"
    train(data, out, model_changes=small, recipe_changes=FAST | {"epochs": 1}, device="cpu", progress=False)
    settings = json.loads((out / "training.json").read_text())
    settings["model"]["generators"][0]["name"] = "elsewhere"
    (out / "training.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"expected the run's generators elsewhere, noise, stripes, got camera, noise"):
        train(data, out, resume=True)
    (out / "training.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"training.json: expected the settings of a training run, got KeyError"):
        train(data, out, resume=True)


def test_refuses_bad_settings_and_data(data, tmp_path):
    with pytest.raises(RangeError, match=r"preset: expected 'paper' or 'tiny' or 'recommended', got 'huge'"):
        train(data, tmp_path / "a", preset="huge")
    with pytest.raises(ConfigError, match=r"depth: expected a field of BMRLConfig \(appearance, .*\), got no such"):
        train(data, tmp_path / "a", model_changes={"depth": 1})
    rows = [row for row in Manifest.read(data).rows if row.generator == "noise"]
    alone = Manifest(tmp_path / "one", tuple(rows))
    alone.write()
    with pytest.raises(DataError, match=r"expected at least two seen generators, got 1"):
        train(alone.root, tmp_path / "a")
    with pytest.raises(ConfigError, match=r"language.vocab_size: expected more than the largest token 49407, got 50"):
        train(data, tmp_path / "a", model_changes={"language.vocab_size": 50, "image_size": 64})
    with pytest.raises(MissingFileError, match=r"manifest.csv: expected a CSV file, got nothing at this path"):
        train(tmp_path, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "abacus"])
def test_refuses_a_device_that_is_not_there(data, tmp_path, device):
    with pytest.raises(DeviceError, match=rf"device: expected .* got '{device}'"):
        train(data, tmp_path / "a", device=device)
    assert not (tmp_path / "a").exists()


def test_a_generator_without_training_images_is_named(data, tmp_path):
    manifest = Manifest.read(data)
    rows = [row for row in manifest.rows if (row.generator, row.split) != ("noise", "train")]
    with pytest.raises(DataError, match=r"expected training images of every seen generator, got none of noise"):
        load_split(Manifest(manifest.root, tuple(rows)), tiny(generators=manifest.generators("seen")), "train")


def test_any_seed_trains(data, small, tmp_path):
    recipe = FAST | {"epochs": 1, "seed": 20_261_123_093_000}
    run = train(data, tmp_path / "run", model_changes=small, recipe_changes=recipe, device="cpu", progress=False)
    assert 0 in metrics(run.folder)


def test_images_without_a_map_stay_out_of_the_parsing_branch(data, small):
    manifest = Manifest.read(data)
    config = tiny(generators=manifest.generators("seen"), **small)
    task = BMRLTask(build_model(config), TrainingConfig())
    samples = load_split(manifest, config, "train")
    batch = default_collate([samples[index] for index in range(6)])
    batch["has_parsing"] = torch.tensor([True, False, True, True, False, True])
    changed = batch | {"parsing": batch["parsing"].clone()}
    changed["parsing"][1] = 3
    results = []
    for given in (batch, changed):
        torch.manual_seed(0)
        task.model.load_state_dict(results[0][1] if results else task.model.state_dict())
        before = copy.deepcopy(task.model.state_dict())
        total, parts, _ = task.objective_step(given)
        results.append((float(total.detach()), before, float(parts["cpc"].detach())))
    assert results[0][0] == results[1][0]
    assert results[0][2] > 0
    batch["has_parsing"][:] = False
    total, parts, _ = task.objective_step(batch)
    assert float(parts["cpc"].detach()) == 0
    total.backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []
    assert all(not parameter.grad.any() for parameter in task.model.parsing_encoder.parameters())
