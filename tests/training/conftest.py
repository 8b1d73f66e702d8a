"""A data folder of three sources that a small network tells apart: smooth, striped and noisy pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bmrl.data.manifest import Manifest, Row

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64
FAMILIES = {
    "camera": ("none", "none"),
    "stripes": ("EFS", "GAN"),
    "noise": ("FS", "diffusion"),
    "checks": ("AM", "GAN"),
}


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    image = np.full((SIZE, SIZE, 3), rng.integers(60, 180, 3), dtype=np.float64)
    y, x = np.mgrid[:SIZE, :SIZE]
    if name == "stripes":
        image += 30 * (x % 4 < 2)[..., None]
    elif name == "noise":
        image += rng.normal(0, 25, image.shape)
    elif name == "checks":
        image += 30 * ((x // 2 + y // 2) % 2)[..., None]
    return image.clip(0, 255).astype(np.uint8)


def write_data(folder: Path, *, parsing: bool = True) -> Manifest:
    """Write 8 training, 4 validation and 4 test images a seen source, 4 test images of an unseen one."""
    rng = np.random.default_rng(0)
    rows = []
    for name, (manipulation, architecture) in FAMILIES.items():
        seen = name != "checks"
        for split, count in (("train", 8), ("val", 4), ("test", 4)) if seen else (("test", 4),):
            for index in range(count):
                path = f"{name}/{split}_{index}.png"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(name, rng)).save(folder / path)
                if parsing:
                    file = folder / "parsing" / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 19, (SIZE, SIZE), dtype=np.uint8)).save(file)
                role = "seen" if seen else "unseen"
                rows.append(Row(path, name, manipulation, architecture, role, split, f"{name} {split} {index}"))
    manifest = Manifest(folder, tuple(rows))
    manifest.write()
    return manifest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, with parsing maps."""
    return write_data(tmp_path_factory.mktemp("data")).root


@pytest.fixture
def data_without_parsing(tmp_path: Path) -> Path:
    """The folder, without parsing maps."""
    return write_data(tmp_path / "data", parsing=False).root


@pytest.fixture
def small() -> dict[str, object]:
    """Changes that make the tiny preset smaller still."""
    return {
        "image_size": SIZE,
        "embed_dim": 16,
        "channels": (4, 8, 8),
        "convs_per_stage": (1, 1, 1),
        "mlp_dim": 16,
        "visual_blocks": 1,
        "parsing_blocks": 1,
        "language_blocks": 1,
    }
