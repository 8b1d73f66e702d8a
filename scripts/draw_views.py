"""Draw docs/views.png: one simulated face and its three views."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image

from bmrl.data.manifest import Manifest
from bmrl.data.simulated import simulate
from bmrl.ops import patch_homogeneity, richest_patch, views

SIDE, PATCH = 224, 112


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest.read(simulate(folder, seed=3, images_per_generator=3, image_size=SIDE).folder)
        row = next(row for row in manifest.rows if row.generator == "sim_transposed")
        pixels = np.array(Image.open(manifest.image_path(row)).convert("RGB"))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    seen = views(images, patch_size=PATCH)
    _, index = richest_patch(images, patch_size=PATCH)
    homogeneity = patch_homogeneity(images, patch_size=PATCH)[0]

    figure, axes = plt.subplots(1, 5, figsize=(15, 3.5), layout="constrained")
    axes[0].imshow(seen.appearance[0].permute(1, 2, 0))
    axes[0].set_title("appearance, homogeneities")
    for (y, x), value in np.ndenumerate(homogeneity.numpy()):
        axes[0].text((x + 0.5) * PATCH, (y + 0.5) * PATCH, f"{value:.3f}", color="white", ha="center")
    columns = SIDE // PATCH
    corner = (index.item() % columns * PATCH, index.item() // columns * PATCH)
    axes[0].add_patch(Rectangle(corner, PATCH - 1, PATCH - 1, fill=False, edgecolor="red", linewidth=3))
    axes[1].imshow(seen.edge[0, 0], cmap="gray", vmin=0, vmax=1)
    axes[1].set_title("edge: Sobel magnitude, shown to 1")
    for axis, residual, name in zip(axes[2:], seen.noise[0], ("KB", "KV", "H2"), strict=True):
        axis.imshow(residual, cmap="gray", vmin=-0.05, vmax=0.05)
        axis.set_title(f"noise of the red patch: {name}, ±0.05")
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(Path(__file__).parents[1] / "docs" / "views.png", dpi=80)


if __name__ == "__main__":
    main()
