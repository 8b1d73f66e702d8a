"""Scores against other libraries and plain float64 numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors as Neighbors

from bmrl.errors import RangeError, ShapeError
from bmrl.inference.scores import SCORES, FittingData, choose_combination
from bmrl.inference.scores.combination import _auroc
from bmrl.inference.scores.distances import RIDGE

CLASSES, DIM = 4, 6


def fitting(count=80, seed=0, **more):
    rng = np.random.default_rng(seed)
    means = 2 * rng.standard_normal((CLASSES, DIM))
    labels = np.arange(count) % CLASSES
    spread = rng.standard_normal((DIM, DIM)) / 2
    embeddings = means[labels] + rng.standard_normal((count, DIM)) @ spread
    logits = -((embeddings[:, None] - means) ** 2).sum(2)
    tensors = {"logits": torch.tensor(logits), "embeddings": torch.tensor(embeddings), "labels": torch.tensor(labels)}
    return FittingData(**tensors, **more)


def answered(count=20, seed=1):
    rng = np.random.default_rng(seed)
    return torch.tensor(3 * rng.standard_normal((count, CLASSES))), torch.tensor(3 * rng.standard_normal((count, DIM)))


def inverse_covariance(deviations):
    covariance = deviations.T @ deviations / len(deviations)
    return np.linalg.inv(covariance + RIDGE * np.diag(covariance).mean() * np.eye(DIM))


def distances(points, means, inverse):
    differences = points[:, None] - means
    return np.einsum("nkd,de,nke->nk", differences, inverse, differences)


def mahalanobis(data, logits, embedding):
    embeddings, labels = data.embeddings.numpy(), data.labels.numpy()
    means = np.stack([embeddings[labels == label].mean(0) for label in range(CLASSES)])
    inverse = inverse_covariance(embeddings - means[labels])
    return -distances(embedding, means, inverse).min(1)


def relative(data, logits, embedding):
    embeddings = data.embeddings.numpy()
    mean = embeddings.mean(0, keepdims=True)
    common = distances(embedding, mean, inverse_covariance(embeddings - mean))[:, 0]
    return common + mahalanobis(data, logits, embedding)


def neighbors(data, logits, embedding):
    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    search = Neighbors(n_neighbors=10).fit(unit(data.embeddings.numpy()))
    return -search.kneighbors(unit(embedding))[0][:, -1]


def centers(data, logits, embedding):
    embeddings, labels = data.embeddings.numpy(), data.labels.numpy()
    means = np.stack([embeddings[labels == label].mean(0) for label in range(CLASSES)])
    return -np.linalg.norm(embedding[:, None] - means, axis=2).min(1)


def residual(data, logits, embedding):
    pca = PCA(n_components=0.95, svd_solver="full").fit(data.embeddings.numpy())
    return -np.linalg.norm(embedding - pca.inverse_transform(pca.transform(embedding)), axis=1)


ORACLES = {
    "max_probability": lambda data, logits, embedding: softmax(logits, axis=1).max(1),
    "max_logit": lambda data, logits, embedding: logits.max(1),
    "energy": lambda data, logits, embedding: logsumexp(logits, axis=1),
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative,
    "neighbors": neighbors,
    "center_distance": centers,
    "principal_residual": residual,
}


def test_every_score_has_an_oracle():
    assert set(ORACLES) | {"combined"} == set(SCORES)


@pytest.mark.parametrize("name", ORACLES)
def test_is_what_another_library_computes(name):
    data, (logits, embedding) = fitting(), answered()
    got = SCORES[name].fit(data)(logits.float(), embedding.float())
    assert got.dtype == torch.float32
    np.testing.assert_allclose(
        got.numpy(), ORACLES[name](data, logits.numpy(), embedding.numpy()), rtol=2e-4, atol=2e-4
    )


def test_the_combination_is_the_weighted_sum_of_what_it_chose():
    data, (logits, embedding) = fitting(), answered()
    weights = choose_combination(data)
    assert sum(weights.values()) == pytest.approx(1)
    expected = np.zeros(len(logits))
    for name, weight in weights.items():
        own = ORACLES[name](data, data.logits.numpy(), data.embeddings.numpy())
        values = ORACLES[name](data, logits.numpy(), embedding.numpy())
        expected += weight * (values - own.mean()) / own.std()
    got = SCORES["combined"].fit(data)(logits.float(), embedding.float())
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", SCORES)
def test_state_gives_the_score_back(name):
    score = SCORES[name].fit(fitting())
    inputs = [tensor.float() for tensor in answered()]
    again = SCORES[name].from_state(dict(score.state_dict()))
    assert torch.equal(again(*inputs), score(*inputs))
    assert all(tensor.dtype == torch.float32 for tensor in score.state_dict().values())
    for other in SCORES:
        if SCORES[other].fit(fitting()).state_dict().keys() != score.state_dict().keys():
            with pytest.raises(RangeError, match=r"^state: expected "):
                SCORES[other].from_state(dict(score.state_dict()))


@pytest.mark.parametrize("name", SCORES)
@given(seed=st.integers(0, 50), count=st.integers(1, 9))
def test_a_row_does_not_depend_on_the_others(name, seed, count):
    score = SCORES[name].fit(fitting())
    logits, embedding = (tensor.float() for tensor in answered(count, seed))
    whole = score(logits, embedding)
    alone = torch.cat([score(logits[row : row + 1], embedding[row : row + 1]) for row in range(count)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis", "center_distance", "principal_residual"])
def test_moving_everything_changes_nothing(name):
    data, (logits, embedding) = fitting(), answered()
    moved = FittingData(logits=data.logits, embeddings=data.embeddings + 5, labels=data.labels)
    one = SCORES[name].fit(data)(logits.float(), embedding.float())
    other = SCORES[name].fit(moved)(logits.float(), (embedding + 5).float())
    torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis", "neighbors", "center_distance",
                                  "principal_residual"])  # fmt: skip
def test_few_digits_are_lost_in_float32_where_embeddings_lie_far_from_zero(name):
    rng = np.random.default_rng(0)
    means, labels = rng.standard_normal((CLASSES, DIM)), np.arange(200) % CLASSES
    embeddings = (means[labels] + rng.standard_normal((200, DIM))) / np.arange(1, DIM + 1) ** 2 + 10
    tensors = {"embeddings": torch.tensor(embeddings), "labels": torch.tensor(labels)}
    data = FittingData(logits=torch.zeros(200, CLASSES), **tensors)
    points = torch.tensor(rng.standard_normal((50, DIM)) + 10)
    got = SCORES[name].fit(data)(torch.zeros(50, CLASSES), points.float()).numpy()
    expected = ORACLES[name](data, None, points.numpy())
    assert np.abs(got - expected).max() < 2e-5 * expected.std()


@pytest.mark.parametrize("name", [name for name in SCORES if name not in ("max_probability", "max_logit", "energy")])
def test_far_away_is_less_seen(name):
    data = fitting()
    score = SCORES[name].fit(data)
    logits, near = data.logits.float(), data.embeddings.float()
    far = near.flip(1) * 20
    assert score(logits, near).median() > score(logits, far).median()


@pytest.mark.parametrize("count", [4, 5, 7])
def test_fewer_pictures_than_dimensions(count):
    data = fitting(count)
    for name in SCORES:
        assert SCORES[name].fit(data)(data.logits.float(), data.embeddings.float()).isfinite().all()


def test_constant_embeddings():
    data = FittingData(logits=torch.zeros(8, 2), embeddings=torch.ones(8, 3), labels=torch.arange(8) % 2)
    for name in SCORES:
        assert SCORES[name].fit(data)(data.logits, data.embeddings).isfinite().all()


@pytest.mark.parametrize("name", SCORES)
def test_is_exported_for_any_batch(name):
    score = SCORES[name].fit(fitting())
    inputs = tuple(tensor.float() for tensor in answered(5))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(score, inputs, dynamic_shapes=({0: batch}, {0: batch})).module()
    for count in (1, 7):
        fewer = tuple(tensor.float() for tensor in answered(count, 3))
        torch.testing.assert_close(program(*fewer), score(*fewer), rtol=1e-5, atol=1e-5)


def test_learned_centers_are_taken():
    given = torch.arange(CLASSES * DIM).reshape(CLASSES, DIM).double()
    score = SCORES["center_distance"].fit(fitting(centers=given))
    np.testing.assert_allclose(score(torch.zeros(CLASSES, CLASSES), given.float() + 1).numpy(), -(DIM**0.5), rtol=1e-5)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_auroc(seen, unseen):
    expected = roc_auc_score([1] * len(seen) + [0] * len(unseen), seen + unseen)
    assert _auroc(torch.tensor(seen).double(), torch.tensor(unseen).double()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_score_that_tells_only_sources_apart_is_not_chosen(seed):
    """Two sources far apart along one axis of the embedding; logits tell a little about classes. Without the sources'
    names the distances win.
    """
    rng = np.random.default_rng(seed)
    count = 1600
    labels = np.arange(count) % 4
    source = labels // 2
    embeddings = np.stack((8.0 * source + 0.1 * rng.standard_normal(count), rng.standard_normal(count)), 1)
    logits = rng.standard_normal((count, 4))
    logits[np.arange(count), labels] += 0.7
    tensors = {"logits": torch.tensor(logits), "embeddings": torch.tensor(embeddings), "labels": torch.tensor(labels)}
    distances = {"mahalanobis", "relative_mahalanobis", "neighbors", "center_distance", "principal_residual"}
    without = choose_combination(FittingData(**tensors, sources=None))
    assert distances & without.keys()
    named = tuple("ab"[place] for place in source)
    assert not distances & choose_combination(FittingData(**tensors, sources=named)).keys()


def test_too_few_classes_to_leave_one_out():
    data = FittingData(logits=torch.zeros(6, 2), embeddings=torch.randn(6, 3), labels=torch.arange(6) % 2)
    assert choose_combination(data) == {"max_probability": 1.0}


def test_the_choice_is_always_the_same():
    assert choose_combination(fitting()) == choose_combination(fitting())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ShapeError, "labels: expected images = 80, got 3"),
        ({"labels": torch.full((80,), 4)}, RangeError, r"labels: expected labels in 0 \.\. 3, got 4 \.\. 4"),
        ({"embeddings": torch.full((80, DIM), torch.nan)}, RangeError, "embeddings: expected finite numbers"),
        ({"sources": ("a",)}, ShapeError, "sources: expected 80 names, got 1"),
        ({"centers": torch.zeros(3, DIM)}, ShapeError, "centers: expected generators = 4, got 3"),
    ],
)
def test_data_that_does_not_fit(changes, error, message):
    data = fitting()
    fields = {"logits": data.logits, "embeddings": data.embeddings, "labels": data.labels}
    with pytest.raises(error, match=message):
        FittingData(**fields | changes)


def test_a_class_without_pictures():
    data = fitting()
    one = FittingData(logits=data.logits, embeddings=data.embeddings, labels=torch.zeros_like(data.labels))
    with pytest.raises(RangeError, match="labels: expected pictures of every class, got none of class 1"):
        SCORES["mahalanobis"].fit(one)


def test_leaving_classes_out():
    data = fitting()
    left = data.without(torch.tensor([1, 3]))
    assert left.logits.shape == (40, 2)
    for label, old in enumerate((0, 2)):
        assert torch.equal(left.embeddings[left.labels == label], data.embeddings[data.labels == old])
    assert list(itertools.chain(left.labels.unique().tolist())) == [0, 1]
