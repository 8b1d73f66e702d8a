"""Draw docs/losses.png: what the DFACC loss does with a pair of samples, on both sides of its margin."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from bmrl.losses import dfacc_terms

MARGINS = {0.5: "tab:green", 0.7: "tab:blue", 0.9: "tab:purple"}
LABELS = torch.tensor([0, 1])


def pair_term(distance: float, between_centers: float, margin: float) -> float:
    """L_uv of two samples that far apart, of generators whose centers are that far apart."""
    samples, centers = (torch.tensor([[0.0, 0.0], [length, 0.0]]) for length in (distance, between_centers))
    return dfacc_terms(samples, LABELS, centers, margin=margin).inter.item()


def main() -> None:
    """Write the picture."""
    figure, (by_samples, by_centers) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    distances = torch.linspace(0, 2, 201)
    for margin, color in MARGINS.items():
        related = [pair_term(d, 0.0, margin) for d in distances.tolist()]
        by_samples.plot(distances, related, color=color, label=f"related, m = {margin}")
    unrelated = [pair_term(d, 2.0, 0.7) for d in distances.tolist()]
    by_samples.plot(distances, unrelated, color="tab:red", label="unrelated, any m")
    by_samples.set(
        xlabel="distance of the two samples  $\\|y_u - y_v\\|$", ylabel="$L_{uv}$", title="pulled together, or apart"
    )
    by_samples.legend()

    for distance, style in ((0.4, ":"), (1.0, "--"), (1.6, "-")):
        _draw_jump(by_centers, distances, distance, style)
    by_centers.axvline(0.7, color="gray", linewidth=0.8)
    by_centers.annotate("m", (0.7, 1.25), xytext=(4, 0), textcoords="offset points", color="gray")
    by_centers.set(
        xlabel="distance of their centers  $\\|c_{k(u)} - c_{k(v)}\\|$", title="the centers choose (m = 0.7)"
    )
    by_centers.legend(title="distance of the samples")
    for axes in (by_samples, by_centers):
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xlim(0, 2)
        axes.grid(alpha=0.3)
    figure.savefig(Path(__file__).parents[1] / "docs" / "losses.png", dpi=90)


def _draw_jump(axes: plt.Axes, between_centers: Tensor, distance: float, style: str) -> None:
    """Draw L_uv of samples at one distance, in two pieces: it jumps where the centers are a margin apart."""
    for side, color in ((between_centers < 0.7, "tab:blue"), (between_centers >= 0.7, "tab:red")):
        values = [pair_term(distance, d, 0.7) for d in between_centers[side].tolist()]
        label = f"{distance}" if color == "tab:blue" else None
        axes.plot(between_centers[side], values, color=color, linestyle=style, label=label)


if __name__ == "__main__":
    main()
