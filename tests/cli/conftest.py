"""A small model folder and a few images, and ``bmrl`` as a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import bmrl
from bmrl.generators import Generator
from bmrl.models import build_model, presets, save_model

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(bmrl.__file__).parents[1])}


def save_small_model(folder):
    torch.manual_seed(0)
    generators = (
        Generator(name="real", manipulation="none", architecture="none"),
        Generator(name="ddpm, v1", manipulation="EFS", architecture="diffusion"),
    )
    sizes = {"image_size": 32, "embed_dim": 16, "*.channels": (4, 8), "*.convs_per_stage": (1, 1), "*.num_blocks": 1,
             "*.num_heads": 2, "*.mlp_dim": 16, "*.token_patch": 1, "parsing": None, "language": None,
             "decision.thresholds": (0.25, 0.9)}  # fmt: skip
    return save_model(build_model(presets.paper(generators=generators, **sizes)), folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 36), (10, 200, 30)).save(path)
    return path


@pytest.fixture(scope="session")
def command():
    """Return the arguments of a process that runs ``bmrl`` with these."""
    return lambda *arguments: [sys.executable, "-m", "bmrl", *map(str, arguments)]


@pytest.fixture(scope="session")
def environment():
    return ENVIRONMENT


@pytest.fixture(scope="session")
def run(command):
    def run_command(*arguments, **options):
        options = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.run(command(*arguments), timeout=120, check=False, **options)

    return run_command
