"""What every test shares."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from typing import TYPE_CHECKING

# Before NumPy and PyTorch start their threads: on tensors this small they only stand in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Before Triton is imported: without a GPU its interpreter runs the kernels.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

# What runs in the background, or under nohup, ignores signals, and so would all programs that tests start and stop.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# A deadline would fail tests on a busy machine: time is a matter for benchmarks.
settings.register_profile("bmrl", deadline=None, max_examples=50, print_blob=True)
settings.load_profile("bmrl")


@pytest.fixture(autouse=True)
def _log_level():
    """Undo what the command line, run in this process, does to the logger."""
    logger = logging.getLogger("bmrl")
    level = logger.level
    yield
    logger.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def tmpfs(tmp_path):
    """A function that makes a small disk of memory, mounted with ``options``, and returns its folder."""
    disk = tmp_path / "disk"

    def mount(options: str) -> Path:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting needs root, and a container that allows it")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)
