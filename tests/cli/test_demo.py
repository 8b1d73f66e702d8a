"""What the demo does to its folder; ``make demo`` runs the rest of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bmrl._files import CLAIM, claimed
from bmrl.cli import demo as steps_of_demo
from bmrl.cli.demo import demo
from bmrl.cli.demo_folder import MARK
from bmrl.errors import ConfigError, FolderInUseError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """The folder of an earlier demo, whose steps are replaced by two files."""

    def steps(folder: Path, seed: int) -> Path:
        assert {path.name for path in folder.iterdir()} == {MARK, CLAIM}
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text(str(seed))
        (folder / "bmrl.pt").write_text("exported")
        return folder / "model"

    monkeypatch.setattr(steps_of_demo, "_run", steps)
    demo(tmp_path / "demo", seed=1)
    return tmp_path / "demo"


def test_keeps_what_lies_in_its_folder(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"out: expected a new or empty folder, or what .*thesis.txt, which is not"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_replaces_an_earlier_demo(earlier):
    demo(earlier, seed=2)
    assert (earlier / "model" / "config.json").read_text() == "2"
    assert {path.name for path in earlier.iterdir()} == {MARK, "model", "bmrl.pt"}


def test_replaces_a_demo_that_was_interrupted(earlier, monkeypatch):
    steps = steps_of_demo._run

    def interrupted(folder: Path, seed: int) -> Path:
        steps(folder, seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(steps_of_demo, "_run", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo(earlier)


def add_file(folder: Path) -> Path:
    (folder / "model" / "notes.txt").write_text("mine")
    return folder / "model" / "notes.txt"


def change_file(folder: Path) -> Path:
    (folder / "bmrl.pt").write_text("improved")
    return folder / "bmrl.pt"


def add_folder(folder: Path) -> Path:
    (folder / "thesis").mkdir()
    return folder / "thesis"


def link_elsewhere(folder: Path) -> Path:
    (folder / "model").rename(folder.parent / "large_disk")
    (folder / "model").symlink_to(folder.parent / "large_disk")
    return folder / "model" / "config.json"


def change_mark(folder: Path) -> Path:
    (folder / MARK).write_text("This folder was made by bmrl demo")
    return folder / "bmrl.pt"


@pytest.mark.parametrize("change", [add_file, change_file, add_folder, link_elsewhere, change_mark])
def test_refuses_to_replace_what_was_added_or_changed(earlier, change):
    kept = change(earlier)
    before = sorted(os.walk(earlier, followlinks=True))
    with pytest.raises(ConfigError, match=r"which is not, or was changed since; move it away, or give another folder"):
        demo(earlier)
    assert kept.exists()
    assert sorted(os.walk(earlier, followlinks=True)) == before


def test_refuses_a_folder_that_another_process_uses(earlier):
    with claimed(earlier), pytest.raises(FolderInUseError, match="folder that no other process writes into"):
        demo(earlier)
    assert (earlier / "model" / "config.json").read_text() == "1"


@pytest.mark.server
@pytest.mark.slow
def test_every_step_runs_on_fewer_images(tmp_path, monkeypatch, capsys):
    small = {"IMAGES_PER_GENERATOR": 12, "RECIPE": {"epochs": 1}, "BASELINE_RECIPE": {"epochs": 1}}
    asked = {"decision.accept": 0.8, "decision.typical": 0.5, "decision.max_error": 0.4}  # of few validation images
    small["MODEL"] = steps_of_demo.MODEL | asked
    for name, value in small.items():
        monkeypatch.setattr(steps_of_demo, name, value)
    report = demo(tmp_path / "demo")
    assert "</html>" in report.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    for step in (
        "simulated 132 images",
        "trained, and fitted",
        "evaluated",
        "exported:",
        "attributed 10 images over gRPC",
    ):
        assert step in printed
    for version in ("as they are", "jpeg75", "half", "crop"):
        assert f"  {version}: named rightly " in printed
    assert "served and local probabilities differ by at most" in printed
