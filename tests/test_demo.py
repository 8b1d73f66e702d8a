"""What the demo refuses; ``make demo`` runs the rest of it."""

from __future__ import annotations

import pytest

from bmrl.demo import run_demo
from bmrl.errors import ConfigError


def test_keeps_what_lies_in_its_folder(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"out: expected a new or empty folder, got .*"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
