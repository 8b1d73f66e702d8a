"""The network whose answers can be worked out by hand, as the evaluation's tests use it, and pictures to fit to."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from tests.evaluation.conftest import (
    classes,
    data,
    expected_probabilities,
    judge_color,
    manifest,
    model,
    small,
    small_config,
)

__all__ = ["classes", "data", "expected_probabilities", "judge_color", "manifest", "model", "small", "small_config"]

COLORS = {"red": (200, 60, 60), "green": (60, 200, 60), "photo": (60, 60, 200)}


@pytest.fixture
def faces(tmp_path):
    """20 training and 20 validation pictures of each class, of noisy colors; no file of the test split."""
    rng = np.random.default_rng(0)
    families = {"red": ("EFS", "GAN"), "green": ("FS", "diffusion"), "photo": ("none", "none")}
    rows = []
    for name, color in COLORS.items():
        for split, count in (("train", 20), ("val", 20), ("test", 1)):
            for number in range(count):
                path = f"{name}_{split}_{number}.png"
                pixels = rng.normal(color, 75, (3,)) + rng.normal(0, 20, (36, 36, 3))
                if split != "test":
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / path)
                rows.append(Row(path, name, *families[name], "seen", split, path, f"{name}s@1"))
    rows.append(Row("gray.png", "gray", "AM", "GAN", "unseen", "test", "gray"))
    manifest = Manifest(tmp_path, tuple(rows))
    manifest.write()
    return manifest
