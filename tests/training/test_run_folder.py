"""What training leaves in its folder: one writer at a time, and nothing that blocks the next try."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest
import torch

from bmrl._files import claimed
from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DataError, DeviceError, FolderInUseError, MissingFileError, RangeError
from bmrl.evaluation.comparison import compare
from bmrl.training import BMRLTask, train


@pytest.fixture
def start(data, runs):
    """Train a small model."""

    def call(out, **options):
        defaults = {"model_changes": runs.plain, "recipe_changes": runs.brisk, "device": "cpu", "progress": False}
        return train(options.pop("data", data), out, **(defaults | options))

    return call


@pytest.mark.parametrize("resume", [False, True])
def test_two_processes_share_no_folder(data, plain_run, runs, run_code, tmp_path, resume):
    out = tmp_path / "run"
    first = run_code(runs.call(data, out))
    first.wait_for((out / "checkpoints").is_dir)
    second = run_code(runs.call(data, out, resume=resume))
    assert second.wait() == 1
    assert "FolderInUseError: " in second.output
    assert first.wait() == 0
    assert runs.same(out, plain_run)


def test_two_threads_share_no_folder(start, tmp_path, monkeypatch):
    inside, leave = threading.Event(), threading.Event()
    step = BMRLTask.training_step

    def waiting(self, batch):
        inside.set()
        leave.wait(60)
        return step(self, batch)

    monkeypatch.setattr(BMRLTask, "training_step", waiting)
    thread = threading.Thread(target=start, args=(tmp_path,))
    thread.start()
    inside.wait(60)
    try:
        with pytest.raises(FolderInUseError, match="folder that no other process writes into"):
            start(tmp_path)
    finally:
        leave.set()
        thread.join()
    assert (tmp_path / "config.json").exists()


def test_compare_claims_its_folder(data, tmp_path):
    with claimed(tmp_path / "out"), pytest.raises(FolderInUseError):
        compare(data, tmp_path / "out", max_epochs=1, device="cpu")


def test_the_claim_of_a_killed_process_is_nobodys(start, tmp_path):
    (tmp_path / ".bmrl-in-use").touch()
    start(tmp_path)
    assert not (tmp_path / ".bmrl-in-use").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"preset": "huge"}, RangeError),
        ({"device": "abacus"}, DeviceError),
        ({"recipe_changes": {"epochs": 0}}, ConfigError),
        ({"recipe_changes": {"shift": 64, "epochs": 1}}, ConfigError),
        ({"model_changes": {"depth": 1}}, ConfigError),
        ({"model_changes": {"image_size": 64, "language.vocab_size": 50}}, ConfigError),
        ({"data": "/nonexistent"}, MissingFileError),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_what_fails_early_leaves_nothing(start, tmp_path, options, error, there):
    out = tmp_path / "run"
    if there:
        out.mkdir()
    with pytest.raises(error):
        start(out, **options)
    assert out.exists() == there
    assert not there or list(out.iterdir()) == []


def test_images_that_cannot_be_read_leave_nothing(start, data_without_parsing, tmp_path):
    for path in (data_without_parsing / "noise").glob("train_*"):
        path.write_text("no image")
    with pytest.raises(DataError, match="got none of noise"):
        start(tmp_path / "run", data=data_without_parsing)
    assert not (tmp_path / "run").exists()


def test_a_failure_in_the_first_epoch_leaves_nothing_but_other_peoples_files(start, tmp_path, monkeypatch):
    def exhausted(self, batch):
        (tmp_path / "run" / "notes.txt").write_text("mine")
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(BMRLTask, "training_step", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        start(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_failure_after_the_first_epoch_can_be_resumed(data, start, plain_run, runs, tmp_path, monkeypatch):
    step = BMRLTask.training_step

    def failing(self, batch):
        if self.current_epoch == 1:
            raise DeviceError("device: unplugged")
        return step(self, batch)

    with monkeypatch.context() as broken:
        broken.setattr(BMRLTask, "training_step", failing)
        with pytest.raises(DeviceError, match="unplugged"):
            start(tmp_path / "run")
    train(data, tmp_path / "run", resume=True, device="cpu", progress=False)
    assert runs.same(tmp_path / "run", plain_run)


def test_leftovers_of_a_kill_are_no_content_and_are_removed(start, tmp_path):
    (tmp_path / ".training.json.abcd1234").mkdir()
    (tmp_path / ".training.json.abcd1234" / "training.json").write_text("{")
    start(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_only_our_leftovers_are_removed(start, tmp_path):
    mine = [tmp_path / ".training.json.abcd1234" / "thesis.txt", tmp_path / ".training.json.backup" / "training.json"]
    for path in mine:
        path.parent.mkdir()
        path.write_text("mine")
    with pytest.raises(ConfigError, match="out: expected a new or empty folder"):
        start(tmp_path)
    assert all(path.read_text() == "mine" for path in mine)


def test_refuses_a_file_and_a_broken_link(data, start, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=rf"out: expected a new or empty folder, got .*{name}$"):
            start(tmp_path / name)
        with pytest.raises(MissingFileError, match="out: expected a run to resume with"):
            start(tmp_path / name, resume=True)
    with pytest.raises(ConfigError, match="expected a folder, got a file or a broken link"):
        compare(data, tmp_path / "file", max_epochs=1, device="cpu")


def test_trains_into_an_empty_folder_behind_a_link(start, plain_run, runs, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    start(tmp_path / "link")
    assert runs.same(tmp_path / "there", plain_run)


@pytest.mark.parametrize(
    "content",
    ["[]", "3", "", "{", '{"model": 3, "recipe": {}}', '{"model": {}, "recipe": []}', "[" * 100_000, "\udcff"],
)
def test_settings_that_are_none_are_named(start, plain_run, tmp_path, content):
    (tmp_path / "training.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"training.json: ") as error:
        start(tmp_path, resume=True)
    assert "\n" not in str(error.value)


def test_settings_that_were_changed_since_are_named(data, plain_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plain_run, folder)
    (folder / "config.json").unlink()
    settings = json.loads((folder / "training.json").read_text())
    settings["recipe"]["weight_decay"] = 0.5
    (folder / "training.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"last.ckpt: expected a checkpoint of this run, got another weight_decay: "):
        train(data, folder, resume=True, device="cpu", progress=False)


def test_a_run_without_its_weights_is_not_finished(data, plain_run, runs, tmp_path):
    shutil.copytree(plain_run, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    train(data, tmp_path / "run", resume=True, device="cpu", progress=False)
    assert runs.same(tmp_path / "run", plain_run)


def test_maps_that_vanished_since_the_start_are_named(data, small, tmp_path):
    recipe = {"epochs": 1, "batch_size": 8, "precision": "32-true"}
    train(data, tmp_path / "run", model_changes=small, recipe_changes=recipe, device="cpu", progress=False)
    (tmp_path / "run" / "config.json").unlink()
    manifest = Manifest.read(data)
    for row in manifest.rows:
        (tmp_path / "bare" / row.path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(data / row.path, tmp_path / "bare" / row.path)
    Manifest(tmp_path / "bare", manifest.rows).write()
    with pytest.raises(DataError, match="expected the parsing maps that the run began with, got none"):
        train(tmp_path / "bare", tmp_path / "run", resume=True, device="cpu", progress=False)
