"""The source distribution holds what a checkout does, so that it builds, tests and demos as one."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_source_distribution_holds_every_file_of_the_repository(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: nothing says which files belong to the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    files = {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as content:
        members = {member.name.partition("/")[2]: member for member in content.getmembers()}
    assert files - set(members) == set()
    assert members[".ci/run"].mode & 0o111
