"""What the demo does to its folder; ``make demo`` runs the rest of it."""

from __future__ import annotations

import pytest

from bmrl.demo import MARK, _clear, run_demo
from bmrl.errors import ConfigError


def test_keeps_what_lies_in_its_folder(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"out: expected a new or empty folder, or an earlier demo's, got .*"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_replaces_an_earlier_demo(tmp_path):
    folder = tmp_path / "new" / "demo"
    _clear(folder)
    (folder / "model").mkdir()
    _clear(folder)
    assert [path.name for path in folder.iterdir()] == [MARK]
