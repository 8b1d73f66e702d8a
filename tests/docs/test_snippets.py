"""The Python of the pages runs as it is: all blocks of a page, one after the other, in an empty folder.

A block runs unless ``<!-- not run: WHY -->`` is on the line before it. Blocks share their names, and find the
image ``photo.jpg``. A block's lines keep their numbers, so that a traceback names the line of the page.
"""

from __future__ import annotations

import re
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from tests.docs.results import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
SKIPPED = re.compile(r"<!-- not run: [^\n]+ -->\s*$")


def blocks(page):
    """Return the programs of a page that run, and the number of those that do not."""
    text = (ROOT / page).read_text(encoding="utf-8")
    programs, skipped = [], 0
    for found in BLOCK.finditer(text):
        if SKIPPED.search(text, 0, found.start()):
            skipped += 1
            continue
        code = re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE)
        programs.append("\n" * (text.count("\n", 0, found.start("code"))) + code)
    return programs, skipped


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    torch.manual_seed(0)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)[0]])
@pytest.mark.usefixtures("folder")
def test_every_block_runs(page, monkeypatch):
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look for the names of their fields' types
    for program in blocks(page)[0]:
        exec(compile(program, str(ROOT / page), "exec"), vars(module))


def test_blocks_are_found():
    assert [len(blocks(page)[0]) for page in ("README.md", "docs/losses.md")] == [3, 2]
    assert blocks("docs/serving.md") == ([], 2)  # tests/export/triton/test_serving_page.py runs them


def test_the_places_to_extend_exist():
    table = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("## A loss")[0]
    files = [file for file in re.findall(r"`(bmrl/[\w./]+\.py)`", table) if "NAME" not in file]
    assert len(files) > 8
    assert [file for file in files if not (ROOT / file).is_file()] == []
    for name, file in re.findall(r"`([A-Z]+)` in `(bmrl/[\w./]+\.py)`", table):
        assert re.search(rf"^{name}\b.*= ", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (name, file)
