"""A folder of plainly colored images, and a network whose answer for each of them can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torch import nn

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.generators import Generator
from bmrl.models import BMRLConfig, BMRLOutput, presets
from tests.training.conftest import data, small

__all__ = ["data", "small"]  # fixtures

RED = Generator(name="red", manipulation="EFS", architecture="GAN")
GREEN = Generator(name="green", manipulation="FS", architecture="diffusion")
PHOTO = Generator(name="photo", manipulation="none", architecture="none")
CLASSES = (RED, GREEN, PHOTO)  # not in the order of their names, so that a sorted list would show
SHARPNESS = 4.0


class ColorJudge(nn.Module):
    """Probabilities are the softmax of 4 times the mean red, green and blue in [0, 1]; a model of bmrl in every way."""

    def __init__(self):
        super().__init__()
        self.config = BMRLConfig(generators=CLASSES, image_size=32, embed_dim=8)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))

    def forward(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 32, 32)
        means = images.float().mean(dim=(2, 3)) / 255
        logits = self.sharpness * means
        embedding = nn.functional.pad(nn.functional.normalize(means + 0.01, dim=1), (0, 5))
        return BMRLOutput(logits, logits.softmax(dim=1), embedding)


def judge(color):
    """Return what :class:`ColorJudge` says of a color (three numbers in 0..255), in plain Python."""
    powers = [math.exp(SHARPNESS * channel / 255) for channel in color]
    return [power / sum(powers) for power in powers]


# name: manipulation, architecture, role, {split: colors}
IMAGES = {
    "red": ("EFS", "GAN", "seen", {"train": [(250, 0, 0), (240, 9, 0), (200, 30, 3)],
                                   "test": [(255, 0, 0), (230, 10, 0), (0, 200, 0)]}),
    "green": ("FS", "diffusion", "seen", {"train": [(0, 250, 0), (9, 222, 9)], "test": [(0, 255, 0), (0, 110, 0)]}),
    "photo": ("none", "none", "seen", {"train": [(0, 0, 255), (20, 0, 222)], "test": [(0, 0, 255)]}),
    "gray": ("AM", "GAN", "unseen", {"test": [(128, 128, 128), (99, 90, 90)]}),
    "snapshot": ("none", "none", "unseen", {"test": [(0, 20, 240)]}),
}  # fmt: skip


@pytest.fixture
def model():
    return ColorJudge()


@pytest.fixture
def small_config():
    """Make the configuration of a real BMRL model that is quick to run: 32 px, a few channels, no training branches."""

    def make(generators=CLASSES, **changes):
        sizes = {"image_size": 32, "embed_dim": 16, "*.channels": (4, 8), "*.convs_per_stage": (1, 1),
                 "*.num_blocks": 1, "*.num_heads": 2, "*.mlp_dim": 16, "*.token_patch": 1, "parsing": None,
                 "language": None}  # fmt: skip
        return presets.paper(generators=generators, **(sizes | changes))

    return make


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for name, (manipulation, architecture, role, splits) in IMAGES.items():
        for split, colors in splits.items():
            for number, color in enumerate(colors):
                path = f"{name}/{split}{number}.png"
                (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 32), color).save(tmp_path / "data" / path)
                rows.append(Row(path, name, manipulation, architecture, role, split, f"{split} {name} {number}"))
    made = Manifest(tmp_path / "data", tuple(rows))
    made.write()
    return made


@pytest.fixture
def expected_probabilities():
    """Of the test images in the manifest's order, by path."""
    return {
        f"{name}/test{number}.png": judge(color)
        for name, (_, _, _, splits) in IMAGES.items()
        for number, color in enumerate(splits["test"])
    }


@pytest.fixture
def judge_color():
    return judge


@pytest.fixture
def classes():
    return CLASSES
