from __future__ import annotations

import sys

import pytest
import torch

from bmrl.errors import MissingExtraError, ShapeError
from bmrl.evaluation.report.projection import project


def test_groups_stay_together():
    """Two groups far apart: every image's nearest neighbor on the map is of its own group."""
    rng = torch.Generator().manual_seed(0)
    embeddings = torch.randn(40, 16, generator=rng) * 0.1
    embeddings[20:] += 3
    points = project(embeddings)
    assert points.shape == (40, 2)
    assert points.dtype == torch.float32
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert ((distances.argmin(dim=1) >= 20) == (torch.arange(40) >= 20)).all()


def test_same_seed_same_map():
    embeddings = torch.randn(12, 1, generator=torch.Generator().manual_seed(1))  # one dimension: random start
    assert torch.equal(project(embeddings), project(embeddings))
    assert not torch.equal(project(embeddings), project(embeddings, seed=1))


@pytest.mark.parametrize("shape", [(5, 2), (5, 1), (6, 64)])
def test_few_images_and_few_dimensions(shape):
    assert project(torch.randn(shape, generator=torch.Generator().manual_seed(2))).isfinite().all()


def test_equal_embeddings_land_together():
    assert (project(torch.full((9, 3), 0.1)) == 0).all()


def test_rejects(monkeypatch):
    with pytest.raises(ShapeError, match=r"embeddings: expected at least 5 images, got 4"):
        project(torch.zeros(4, 3))
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn: not installed.*\[train\]"):
        project(torch.zeros(9, 3))
