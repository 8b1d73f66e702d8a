"""CITATION.cff is valid and of this version."""

from __future__ import annotations

import subprocess
import sys

import yaml

import bmrl
from tests.docs.results import ROOT

FILE = ROOT / "CITATION.cff"


def valid(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", file]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_is_valid(tmp_path):
    assert valid(FILE).returncode == 0, valid(FILE).stdout
    broken = tmp_path / "CITATION.cff"
    broken.write_text(FILE.read_text().replace("authors:", "writers:", 1))
    assert valid(broken).returncode == 1


def test_names_this_version_and_the_paper():
    citation = yaml.safe_load(FILE.read_text())
    assert citation["version"] == bmrl.__version__
    assert [paper["url"] for paper in citation["references"]] == ["https://arxiv.org/abs/2504.14129"]
