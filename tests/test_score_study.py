"""The study of scores: what it compares, worked out by brute force."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("sklearn")

from benchmarks.score_study import LEAST_NEAR, VERSIONS, Pictures, compare

CLASSES = ["one", "other"]


def pictures(names, seed, *, collection="home", center=None):
    """Embeddings around the center of each class; each alteration moves all of them in one direction."""
    rng = torch.Generator().manual_seed(seed)
    centers = {"one": [4.0, 0.0, 0.0, 0.0], "other": [0.0, 4.0, 0.0, 0.0], "new": [2.0, 2.0, 3.0, 0.0]}
    base = torch.tensor([centers[name] for name in names]) + 0.5 * torch.randn(len(names), 4, generator=rng)
    moved = torch.tensor([[0.0, 0.0, 0.0, 6.0 * place] for place in range(len(VERSIONS))])
    groups = [f"{name}-{number}" for number, name in enumerate(names)]
    return Pictures(base[:, None] + moved, list(names), groups, [collection] * len(names))


def head(embeddings):
    return embeddings[..., :2]


@pytest.fixture(scope="module")
def found():
    tested = pictures(["one", "other"] * 24, 1)
    return tested, compare(head, CLASSES, pictures(["one", "other"] * 40, 0), tested, pictures(["new"] * 20, 2))


def test_an_auroc_is_the_share_of_right_pairs(found):
    tested, told = found
    order = {group: number for number, group in enumerate(sorted(tested.groups))}
    kept = torch.tensor([order[group] % 2 == 1 for group in tested.groups])
    seen = head(tested.embeddings[kept]).amax(-1)
    unseen = head(pictures(["new"] * 20, 2).embeddings).amax(-1)
    entry = told["as they are"]["max_logit"]["new"]
    for place, version in enumerate(VERSIONS):
        pairs = (seen[:, place][:, None] > unseen[:, place]).double().mean()
        assert entry[version] == pytest.approx(float(pairs))
    together = (seen.flatten()[:, None] > unseen.flatten()).double().mean()
    assert entry["together"] == entry["one collection"] == pytest.approx(float(together))
    assert int(kept.sum()) >= LEAST_NEAR


def test_a_distance_that_knows_the_alterations_passes_over_them(found):
    _, told = found
    alone, mixed = (told[way]["mahalanobis"]["new"] for way in ("as they are", "all versions in turn"))
    assert alone["as it is"] > 0.95
    assert mixed["together"] > 0.95 > alone["together"] + 0.1
