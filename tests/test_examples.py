"""The examples run as they are, and learn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SERVED = "ask_a_server.py"  # tests/export/triton/test_serving_page.py runs it
EXAMPLES = sorted(path for path in Path(__file__).parents[1].glob("examples/*.py") if path.name != SERVED)


def test_there_are_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs_and_learns(example):
    run = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr
    losses = [float(value) for value in re.findall(r"loss\s+(-?\d+\.\d+)", run.stdout)]
    assert len(losses) >= 2, run.stdout
    assert losses[-1] < losses[0] - 1
