"""Imports that ``make lint`` does not judge: circles through a package's ``__init__``, and standalone files."""

from __future__ import annotations

import subprocess
import sys

import grimp
import pytest


@pytest.fixture(scope="module")
def graph():
    """Return who imports whom in bmrl, type-checking imports too."""
    return grimp.build_graph("bmrl", cache_dir=None)


def imports(graph):
    return [(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)]


def test_no_import_is_part_of_a_circle(graph):
    found = imports(graph)
    assert ("bmrl.cli.demo", "bmrl.models") in found
    assert [pair for pair in sorted(found) if pair[0] != "bmrl" and graph.chain_exists(pair[1], pair[0])] == []


def test_standalone_files_import_nothing_of_bmrl(graph):
    """They are copied next to a model and run where bmrl is not installed."""
    files = graph.find_children("bmrl.export.standalone")
    assert "bmrl.export.standalone.artifact_runtime" in files
    assert {other for one in files for other in graph.find_modules_directly_imported_by(one)} == set()


@pytest.mark.parametrize("module", ["bmrl", "bmrl.errors", "bmrl.generators", "bmrl.parsing"])
def test_plain_data_loads_no_torch(module):
    program = f"import sys, {module}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split() == ["False", "False"]
