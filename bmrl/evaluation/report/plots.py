"""The pictures of the report, as PNG bytes.

Drawn on matplotlib's Agg canvas without pyplot, so that no global state of a user's session changes. No picture holds
a generator's name: legends are text in the report, where any script and any character is safe.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import torch

from bmrl._checks import check_integer, check_shape
from bmrl.errors import MissingExtraError, ShapeError
from bmrl.inference.checks import check_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["Marker", "embedding_map", "markers", "risk_curves", "score_histogram", "threshold_curves"]

SEEN, UNSEEN = "#1f6fb4", "#d1495b"
WIDTH, DPI = 5.2, 200  # inches: legible when a phone shows it at full width
PALETTE = ("#1f6fb4", "#e9962c", "#2a9d5c", "#8d5fbf", "#9c6b3f", "#dd76b4", "#12a5b5", "#b0a816", "#5b6fdd", "#6fbf73")
SHAPES = (("^", "△"), ("s", "□"), ("D", "◇"), ("v", "▽"), ("*", "☆"), ("<", "◁"), (">", "▷"))  # drawn hollow
SHADES = ("#22262b", "#8a1c2c", "#6b7280")


class Marker(NamedTuple):
    """How one generator is drawn: a color, matplotlib's name of a shape, and the same shape as a character."""

    color: str
    shape: str
    glyph: str


def markers(num_seen: int, num_unseen: int) -> list[Marker]:
    """Return one marker per generator: colored discs for seen ones, then dark shapes for unseen ones."""
    check_integer("num_seen", num_seen, least=0)
    check_integer("num_unseen", num_unseen, least=0)
    colors = PALETTE if num_seen <= len(PALETTE) else [_hue(index, num_seen) for index in range(num_seen)]
    seen = [Marker(colors[index], "o", "●") for index in range(num_seen)]
    unseen = [
        Marker(SHADES[index // len(SHAPES) % len(SHADES)], *SHAPES[index % len(SHAPES)]) for index in range(num_unseen)
    ]
    return seen + unseen


def score_histogram(seen: Tensor, unseen: Tensor, thresholds: Sequence[float]) -> bytes:
    """Draw how the scores of seen and unseen images are distributed, with the thresholds.

    Args:
        seen: ``(n,)`` maximum probabilities in 0 .. 1.
        unseen: ``(m,)``, m may be 0.
        thresholds: each in 0 .. 1.
    """
    _check_scores(seen, unseen, thresholds)
    figure, axes = _figure(3.1)
    edges = torch.linspace(0, 1, 26).tolist()
    for scores, color, label in ((seen, SEEN, "seen generators"), (unseen, UNSEEN, "unseen generators")):
        if len(scores):
            weights = torch.full_like(scores, 100 / len(scores))
            axes.hist(scores.numpy(), edges, weights=weights.numpy(), color=color, alpha=0.55, label=label)
    _mark_thresholds(axes, thresholds)
    axes.set(xlim=(0, 1), xlabel="maximum probability", ylabel="% of the images")
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def threshold_curves(seen: Tensor, unseen: Tensor, thresholds: Sequence[float]) -> bytes:
    """Draw, against the threshold, the share of seen images accepted and of unseen images rejected.

    Arguments as for :func:`score_histogram`.
    """
    _check_scores(seen, unseen, thresholds)
    figure, axes = _figure(3.1)
    grid = torch.linspace(0, 1, 501, dtype=torch.float64)
    for scores, color, label in ((seen, SEEN, "seen images accepted"), (unseen, UNSEEN, "unseen images rejected")):
        if len(scores):
            rejected = torch.searchsorted(scores.double().sort().values, grid) / len(scores) * 100
            shares = rejected if scores is unseen else 100 - rejected
            axes.plot(grid.numpy(), shares.numpy(), color=color, label=label, linewidth=1.8)
    _mark_thresholds(axes, thresholds)
    axes.set(xlim=(0, 1), ylim=(0, 104), xlabel="threshold", ylabel="% of the images")
    axes.legend(frameon=False, loc="center left")
    return _png(figure)


def risk_curves(curves: Sequence[Sequence[tuple[float, float]]]) -> bytes:
    """Draw the share of wrong answers against the share of pictures that are answered.

    Args:
        curves: each ``(coverage, risk)`` pairs in 0 .. 1; the first is drawn strongest.
    """
    figure, axes = _figure(3.1)
    for place, curve in enumerate(curves):
        coverage, risk = zip(*curve, strict=True)
        axes.plot(
            [100 * value for value in coverage],
            [100 * value for value in risk],
            color=PALETTE[place % len(PALETTE)],
            linewidth=1.8 if place == 0 else 1.0,
        )
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="% of seen images answered", ylabel="% of the answers wrong")
    return _png(figure)


def embedding_map(points: Tensor, kinds: Sequence[int], styles: Sequence[Marker]) -> bytes:
    """Draw one mark per image.

    Args:
        points: ``(n, 2)`` coordinates.
        kinds: n indices into ``styles``.
        styles: see :func:`markers`.
    """
    check_shape("points", points, "images coordinates", coordinates=2)
    if len(kinds) != len(points):
        raise ShapeError(f"kinds: expected {len(points)} indices, got {len(kinds)}")
    figure, axes = _figure(4.4)
    index = torch.as_tensor(kinds)
    for kind, style in enumerate(styles):
        mine = points[index == kind]
        hollow = style.shape != "o"
        axes.scatter(
            mine[:, 0].numpy(),
            mine[:, 1].numpy(),
            s=20 if hollow else 15,
            marker=style.shape,
            facecolors="none" if hollow else style.color,
            edgecolors=style.color if hollow else "white",
            linewidths=0.8 if hollow else 0.3,
        )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color("#d5d9de")
    return _png(figure)


def _check_scores(seen: Tensor, unseen: Tensor, thresholds: Sequence[float]) -> None:
    check_shape("seen", seen, "images")
    check_shape("unseen", unseen, "images")
    for threshold in thresholds:
        check_rate("thresholds", threshold)


def _hue(index: int, total: int) -> str:
    channels = hsv_to_rgb(index / total, 0.75, 0.8 - 0.25 * (index % 2))
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _figure(height: float) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _mark_thresholds(axes: Axes, thresholds: Sequence[float]) -> None:
    for threshold in thresholds:
        axes.axvline(threshold, color="#22262b", linestyle="--", linewidth=0.9)
        axes.annotate(
            f"{threshold:g}",
            (threshold, 1),
            (2, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
