from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from bmrl.errors import MissingExtraError
from bmrl.evaluation.report import plots

SCORES = torch.linspace(0.2, 1.0, 30, dtype=torch.float64)


def pixels(png):
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def has_color(png, color, tolerance=40):
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return bool((np.abs(pixels(png) - wanted).max(axis=2) < tolerance).any())


@pytest.mark.parametrize("draw", [plots.score_histogram, plots.threshold_curves])
def test_shows_both_kinds_and_only_those_there_are(draw):
    both = draw(SCORES, SCORES / 2, [0.7, 0.9])
    seen_only = draw(SCORES, SCORES[:0], [0.7])
    assert pixels(both).shape[1] == 1040
    assert not np.array_equal(pixels(both), pixels(seen_only))
    reddish = [((image[..., 0] - image[..., 2]) > 50).any() for image in (pixels(both), pixels(seen_only))]
    assert reddish == [True, False]


def test_a_rising_threshold_accepts_fewer_seen_and_rejects_more_unseen_images():
    image = pixels(plots.threshold_curves(SCORES, SCORES / 2, []))[:, 900:1020]  # the right end, clear of the legend
    difference = image[..., 0] - image[..., 2]
    red, blue = np.nonzero(difference > 60)[0], np.nonzero(difference < -60)[0]
    assert red.max() < blue.min()  # rows count from the top


def test_map_draws_every_kind_in_its_color():
    styles = plots.markers(3, 2)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    png = plots.embedding_map(points, [0, 1, 2, 3, 4], styles)
    assert all(has_color(png, style.color) for style in styles)
    without = plots.embedding_map(points[:2], [0, 2], styles)
    assert not has_color(without, styles[1].color)


@pytest.mark.parametrize(("seen", "unseen"), [(1, 0), (10, 9), (40, 20)])
def test_markers_tell_generators_apart(seen, unseen):
    made = plots.markers(seen, unseen)
    assert len(set(made)) == len(made) == seen + unseen
    assert {marker.shape for marker in made[:seen]} == {"o"}
    assert all(marker.shape != "o" for marker in made[seen:])


def test_leaves_pyplot_alone():
    plots.score_histogram(SCORES, SCORES, [0.5])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib: not installed.*\[train\]"):
        plots.score_histogram(SCORES, SCORES, [0.5])
