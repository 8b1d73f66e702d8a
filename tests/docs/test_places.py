"""Each file and each module that a text of the repository names is there: code, pages, scripts, deployment files."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.docs.results import ROOT

FOLDERS = ("benchmarks", "bmrl", "deploy", "docker", "docs", "examples", "scripts")
TEXTS = [
    *sorted(path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".cff"} or path.name == "Makefile"),
    *sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if (path.suffix in {".md", ".py", ".sh", ".yaml"} or path.parent.name == "docker")
        and path.is_file()
        and "_build" not in path.parts
        and "docs/api" not in path.as_posix()
    ),
]
MADE = {"docs/_build/index.html", "docs/README.html"}
"""What ``make docs`` makes."""
FILE = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*FOLDERS, 'tests'))})/[\w./-]*\w\.\w+\b")
ROLE = re.compile(r":(?:func|class|mod|data|meth|attr|exc):`~?(bmrl[\w.]*)`")


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_text_names_exists(text):
    content = text.read_text(encoding="utf-8")
    files = {file for file in FILE.findall(content) if "NAME" not in file} - MADE
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []
    assert [name for name in sorted(set(ROLE.findall(content))) if not _resolves(name)] == []


def test_texts_name_many():
    contents = [text.read_text(encoding="utf-8") for text in TEXTS]
    assert sum(len(FILE.findall(content)) for content in contents) > 150
    assert sum(len(ROLE.findall(content)) for content in contents) > 120


def _resolves(name):
    """Return whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[length:]:
                value = getattr(value, part)
        except AttributeError:
            return False
        return True
    return False
