"""The checkpoints of a run: written whole, and checked before a run is resumed with them."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from bmrl._files import new_file
from bmrl.errors import ConfigError
from bmrl.models import load_model
from bmrl.training import train
from bmrl.training._checkpoints import AtomicCheckpointIO


def unfinished(run, folder):
    """A copy of a run as a kill leaves it, before the model was written."""
    shutil.copytree(run, folder)
    for name in ("config.json", "model.safetensors", "objective.safetensors"):
        (folder / name).unlink()
    return folder


def test_only_names_within_the_folder_are_remembered(plain_run):
    for name in ("last.ckpt", "best.ckpt"):
        assert str(plain_run).encode() not in (plain_run / "checkpoints" / name).read_bytes()


def test_the_best_epoch_survives_a_move(data, runs, run_code, tmp_path):
    # Every epoch after the first is made worse, so that none of them must take its place.
    spoil = (
        "from bmrl.training import BMRLTask\n"
        "log = BMRLTask.log\n"
        "def spoiled(self, name, value, **options):\n"
        "    log(self, name, value + self.current_epoch if name == 'val_loss' else value, **options)\n"
        "BMRLTask.log = spoiled\n"
    )
    stop = (
        "from bmrl.training._checkpoints import RunCheckpoints\n"
        "import os\n"
        "save = RunCheckpoints.on_train_epoch_end\n"
        "def stop(self, trainer, task):\n"
        "    save(self, trainer, task)\n"
        "    os._exit(9)\n"
        "RunCheckpoints.on_train_epoch_end = stop\n"
    )
    assert run_code(spoil + runs.call(data, tmp_path / "whole")).wait() == 0
    assert run_code(spoil + stop + runs.call(data, tmp_path / "killed")).wait() == 9
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(data, elsewhere / "data")
    shutil.move(tmp_path / "killed", elsewhere / "run")
    resumed = run_code(spoil + runs.call("data", "run", resume=True), cwd=elsewhere)
    assert resumed.wait() == 0, resumed.output
    assert runs.same(elsewhere / "run", tmp_path / "whole")
    kept = torch.load(elsewhere / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    weights = {f"model.{name}": value for name, value in load_model(elsewhere / "run").state_dict().items()}
    assert all(torch.equal(kept["state_dict"][name], value) for name, value in weights.items())


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def changed(change):
    """Return what puts a readable file with other content in the place of a checkpoint."""

    def put(file):
        content = torch.load(file, weights_only=True)
        torch.save(change(content), file)

    return put


def without(*keys):
    return changed(lambda content: {key: value for key, value in content.items() if key not in keys})


DAMAGE = {
    "cut off": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
    "text": lambda file: file.write_text("text" * 99),
    "one bit": flip_a_bit,
    "empty dict": changed(lambda _: {}),
    "list": changed(lambda _: [1]),
    "tensor": changed(lambda _: torch.zeros(3)),
    "number": changed(lambda _: 3),
    "weights alone": changed(lambda content: content["state_dict"]),
    "no weights": changed(lambda content: content | {"state_dict": {}}),
    "other shapes": changed(
        lambda content: content | {"state_dict": {k: torch.zeros(7) for k in content["state_dict"]}}
    ),
    "weights that are numbers": changed(lambda content: content | {"state_dict": dict.fromkeys(content["state_dict"])}),
    "no optimizer": without("optimizer_states"),
    "another optimizer": changed(lambda content: content | {"optimizer_states": [{"state": {}, "param_groups": []}]}),
    "no callbacks": without("callbacks"),
    "no settings": without("settings"),
    "settings of none": changed(lambda content: content | {"settings": "[]"}),
    "no loops": without("loops"),
    "no epoch": without("epoch"),
}


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_checkpoint_that_is_none_is_named_before_training(data, plain_run, tmp_path, name, damage):
    folder = unfinished(plain_run, tmp_path / "run")
    damage(folder / "checkpoints" / name)
    before = (folder / "checkpoints" / name).read_bytes()
    with pytest.raises(ConfigError, match=rf"checkpoints/{name}: expected (the|a) checkpoint of .*, got ") as error:
        train(data, folder, resume=True, device="cpu", progress=False)
    assert "\n" not in str(error.value)
    assert (folder / "checkpoints" / name).read_bytes() == before
    assert not (folder / "config.json").exists()


def test_the_checkpoint_of_another_run_is_refused(data, plain_run, runs, tmp_path):
    changes = runs.brisk | {"learning_rate": 1e-5}
    train(data, tmp_path / "other", model_changes=runs.plain, recipe_changes=changes, device="cpu", progress=False)
    folder = unfinished(plain_run, tmp_path / "run")
    shutil.copy(tmp_path / "other" / "checkpoints" / "last.ckpt", folder / "checkpoints")
    with pytest.raises(ConfigError, match=r"last.ckpt: expected a checkpoint of this run, got another learning_rate:"):
        train(data, folder, resume=True, device="cpu", progress=False)


@pytest.mark.parametrize("change", ["removed", "another epoch's"])
def test_a_lost_best_checkpoint_is_said_to_be_lost(data, plain_run, tmp_path, change):
    folder = unfinished(plain_run, tmp_path / "run")
    best = folder / "checkpoints" / "best.ckpt"
    if change == "removed":
        best.unlink()
    else:
        changed(lambda content: content | {"epoch": 40})(best)
    with pytest.raises(ConfigError, match=r"best.ckpt: expected .*; the best weights are lost: put the file back, or"):
        train(data, folder, resume=True, device="cpu", progress=False)


def test_the_best_checkpoint_does_not_matter_where_the_last_is_kept(data, runs, tmp_path):
    changes = runs.brisk | {"keep": "last"}
    train(data, tmp_path / "run", model_changes=runs.plain, recipe_changes=changes, device="cpu", progress=False)
    folder = unfinished(tmp_path / "run", tmp_path / "copy")
    (folder / "checkpoints" / "best.ckpt").write_text("text")
    train(data, folder, resume=True, device="cpu", progress=False)
    assert runs.same(folder, tmp_path / "run")


def test_a_full_disk_leaves_the_old_checkpoint_and_is_named(tmpfs):
    full_disk = tmpfs("size=200k")
    file = full_disk / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "weights": torch.zeros(20_000)}, file)
    with pytest.raises(OSError, match="No space left on device") as error:
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "weights": torch.zeros(40_000)}, file)
    assert error.value.filename == str(file)
    assert torch.load(file, weights_only=True)["epoch"] == 1
    assert [path.name for path in full_disk.iterdir()] == ["last.ckpt"]


def test_a_full_disk_while_training_loses_nothing(data, plain_run, runs, run_code, tmp_path):
    # A limit on the size of a file fails as a full disk does, wherever the tests run.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
    stopped = run_code(limit + runs.call(data, tmp_path / "run"))
    assert stopped.wait() == 1
    assert f"File too large: '{tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}'" in stopped.output
    assert not (tmp_path / "run").exists()  # nothing to resume, and nothing in the way of the next try

    code = (
        "from bmrl.training._checkpoints import RunCheckpoints\n"
        "save = RunCheckpoints.on_train_epoch_end\n"
        "def limited(self, trainer, task):\n"
        "    if trainer.current_epoch == 1:\n"
        "        import resource\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        "    save(self, trainer, task)\n"
        "RunCheckpoints.on_train_epoch_end = limited\n"
    )
    assert run_code(code + runs.call(data, tmp_path / "run")).wait() == 1
    for name in ("last.ckpt", "best.ckpt"):
        assert torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)["epoch"] == 0
    assert run_code(runs.call(data, tmp_path / "run", resume=True)).wait() == 0
    assert runs.same(tmp_path / "run", plain_run)


@pytest.mark.parametrize("name", ["metrics.csv", "training.json", "objective.safetensors"])
def test_a_file_of_the_run_is_whole_or_not_there(data, plain_run, runs, run_code, tmp_path, name):
    code = (
        "import pathlib\n"
        "def failing(call):\n"
        "    def write(self, *arguments, **options):\n"
        f"        if self.name == {name!r} and '.{name}.' in str(self):\n"
        "            import errno\n"
        "            raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "        return call(self, *arguments, **options)\n"
        "    return write\n"
        "for call in ('write_bytes', 'write_text', 'open'):\n"
        "    setattr(pathlib.Path, call, failing(getattr(pathlib.Path, call)))\n"
    )
    stopped = run_code(code + runs.call(data, tmp_path / "run"))
    assert stopped.wait() == 1
    assert "No space left on device: '" in stopped.output
    assert f"{name}'" in stopped.output.splitlines()[-1]
    assert list(tmp_path.glob(f"run/**/{name}")) == []
    resume = (tmp_path / "run" / "training.json").exists()
    assert run_code(runs.call(data, tmp_path / "run", resume=resume)).wait() == 0
    assert runs.same(tmp_path / "run", plain_run)


def test_permissions_are_those_of_any_new_file(plain_run):
    mode = (plain_run / "training.json").stat().st_mode
    for name in ("objective.safetensors", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (plain_run / name).stat().st_mode == mode


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as error, new_file(tmp_path / "out"):
        (tmp_path / "missing").read_text()
    assert error.value.filename == str(tmp_path / "missing")
