from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, roc_auc_score

from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.evaluation import metrics

scores = st.lists(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000000001, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=12
)


@st.composite
def probabilities(draw, num_generators, max_images=8):
    """Rows of small integers over their sum: ties between classes and between images are common."""
    weights = st.lists(st.integers(0, 3), min_size=num_generators, max_size=num_generators).filter(any)
    rows = draw(st.lists(weights, min_size=1, max_size=max_images))
    return [[weight / sum(row) for weight in row] for row in rows]


@st.composite
def labeled(draw):
    num_generators = draw(st.integers(1, 4))
    rows = draw(probabilities(num_generators))
    labels = draw(st.lists(st.integers(0, num_generators - 1), min_size=len(rows), max_size=len(rows)))
    return rows, labels, num_generators


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def first_best(row):
    return row.index(max(row))


def wins(upper, lower):
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in upper for b in lower)


@given(labeled())
def test_closed_set_metrics_equal_counting(case):
    rows, labels, num_generators = case
    named = [first_best(row) for row in rows]
    right = [name == label for name, label in zip(named, labels, strict=True)]
    recalls = []
    for label in set(labels):
        mine = [hit for hit, other in zip(right, labels, strict=True) if other == label]
        recalls.append(sum(mine) / len(mine))
    assert metrics.accuracy(f64(rows), labels) == sum(right) / len(right)
    assert metrics.balanced_accuracy(f64(rows), labels) == pytest.approx(sum(recalls) / len(recalls), abs=1e-12)
    counts = metrics.confusion_matrix(f64(rows), labels)
    assert counts.dtype == torch.int64
    pairs = list(zip(labels, named, strict=True))
    everyone = range(num_generators)
    assert counts.tolist() == [[pairs.count((truth, name)) for name in everyone] for truth in everyone]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@given(labeled())
def test_closed_set_metrics_equal_scikit_learn(case):
    rows, labels, _ = case
    named = [first_best(row) for row in rows]
    assert metrics.accuracy(f64(rows), labels) == pytest.approx(accuracy_score(labels, named), abs=1e-12)
    if len(set(labels)) > 1:
        expected = balanced_accuracy_score(labels, named)
        assert metrics.balanced_accuracy(f64(rows), labels) == pytest.approx(expected, abs=1e-12)


@given(probabilities(3), st.sampled_from([0.0, 1 / 3, 0.5, 0.6, 0.75, 1.0]))
def test_rejection_is_strictly_below(rows, threshold):
    expected = sum(max(row) < threshold for row in rows) / len(rows)
    assert metrics.rejection_rate(f64(rows), threshold) == expected


def test_rejection_compares_in_double_precision():
    assert metrics.rejection_rate(torch.tensor([[0.7, 0.3]]), 0.7) == 1.0  # float32(0.7) is just below 0.7
    assert metrics.rejection_rate(f64([[0.7, 0.3]]), 0.7) == 0.0


@given(scores, scores)
def test_auroc_equals_pairs_and_scikit_learn(seen, unseen):
    found = metrics.auroc(f64(seen), f64(unseen))
    assert found == pytest.approx(wins(seen, unseen) / (len(seen) * len(unseen)), abs=1e-12)
    assert found == pytest.approx(roc_auc_score([1] * len(seen) + [0] * len(unseen), seen + unseen), abs=1e-12)


@given(scores, scores, st.sampled_from([0.01, 0.3, 0.5, 0.7, 0.95, 1.0]))
def test_fpr_at_tpr_equals_search_over_thresholds(seen, unseen, tpr):
    for threshold in sorted(set(seen), reverse=True):
        if sum(score >= threshold for score in seen) / len(seen) >= tpr:
            break
    expected = sum(score >= threshold for score in unseen) / len(unseen)
    assert metrics.fpr_at_tpr(f64(seen), f64(unseen), tpr=tpr) == expected


def test_fpr_at_tpr_at_an_exact_share():
    """19 of 20 seen images are 95 %: the lowest may fall below the threshold."""
    seen = [0.1] + [0.5 + index / 100 for index in range(19)]
    assert metrics.fpr_at_tpr(f64(seen), f64([0.3, 0.5, 0.2])) == 1 / 3


def average_precision(positive, negative):
    total = 0.0
    for threshold in set(positive):
        hits = sum(score >= threshold for score in positive)
        alarms = sum(score >= threshold for score in negative)
        total += positive.count(threshold) / len(positive) * hits / (hits + alarms)
    return total


@given(scores, scores)
def test_aupr_equals_definition_and_scikit_learn(seen, unseen):
    truth = [1] * len(seen) + [0] * len(unseen)
    found = metrics.aupr(f64(seen), f64(unseen))
    assert found == pytest.approx(average_precision(seen, unseen), abs=1e-12)
    assert found == pytest.approx(average_precision_score(truth, seen + unseen), abs=1e-12)
    found = metrics.aupr(f64(seen), f64(unseen), positive="unseen")
    assert found == pytest.approx(average_precision([-s for s in unseen], [-s for s in seen]), abs=1e-12)


def area_under_ccr_over_fpr(seen, labels, unseen):
    """Trapezoids between the points of all thresholds, from "nothing accepted" on."""
    points = [(0.0, 0.0)]
    for threshold in sorted({max(row) for row in seen + unseen}, reverse=True):
        right = sum(max(row) >= threshold and first_best(row) == label for row, label in zip(seen, labels, strict=True))
        points.append((sum(max(row) >= threshold for row in unseen) / len(unseen), right / len(seen)))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))


@given(labeled(), st.data())
def test_oscr_equals_area_and_pairs(case, data):
    seen, labels, num_generators = case
    unseen = data.draw(probabilities(num_generators))
    found = metrics.oscr(f64(seen), labels, f64(unseen))
    right = [max(row) for row, label in zip(seen, labels, strict=True) if first_best(row) == label]
    assert found == pytest.approx(area_under_ccr_over_fpr(seen, labels, unseen), abs=1e-12)
    assert found == pytest.approx(wins(right, list(map(max, unseen))) / (len(seen) * len(unseen)), abs=1e-12)
    assert found <= metrics.accuracy(f64(seen), labels) + 1e-12


def test_oscr_of_a_worked_example():
    seen = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45]]  # right, right, wrong, right
    unseen = [[0.7, 0.3], [0.45, 0.55]]
    # 0.9 and 0.8 beat both; 0.55 beats none and ties with one: (2 + 2 + 0.5) / 8
    assert metrics.oscr(torch.tensor(seen), torch.tensor([0, 1, 1, 0]), torch.tensor(unseen)) == 0.5625


def test_constant_scores_are_chance():
    same = torch.full((7,), 0.25)
    assert metrics.auroc(same, same[:3]) == 0.5
    assert metrics.fpr_at_tpr(same, same[:3]) == 1.0
    assert metrics.aupr(same, same[:3]) == pytest.approx(0.7)
    assert metrics.aupr(same, same[:3], positive="unseen") == pytest.approx(0.3)


def test_accepts_arrays_lists_half_precision_and_gradients():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    rows = logits.softmax(dim=1)
    labels = rows.argmax(dim=1)
    for values in (rows, rows.detach().numpy(), rows.tolist(), rows.bfloat16(), rows.half()):
        assert metrics.accuracy(values, labels) == 1.0


GOOD = [[0.5, 0.5], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (torch.zeros(0, 2), ShapeError, r"at least one image and one generator, got \(0, 2\)"),
        (torch.zeros(3, 0), ShapeError, r"at least one image and one generator, got \(3, 0\)"),
        (torch.zeros(3), ShapeError, r"shape \(images, generators\), got \(3,\)"),
        ([[0.5, math.nan]], RangeError, r"finite numbers, got nan at \(0, 1\)"),
        ([[0.5, math.inf]], RangeError, r"finite numbers, got inf at \(0, 1\)"),
        ([[0.5, 0.5], [0.5, 0.6]], RangeError, r"rows .* >= 0 that sum to 1, got row 1 with minimum 0.5 and sum 1.1"),
        ([[1.5, -0.5]], RangeError, r"rows .* >= 0 that sum to 1, got row 0 with minimum -0.5 and sum 1"),
        ([[1, 0]], DTypeError, r"a floating-point dtype, got torch.int64"),
    ],
)
def test_rejects_what_is_no_probability(rows, error, message):
    labels = [0] * len(rows)
    with pytest.raises(error, match="^probabilities: expected " + message):
        metrics.accuracy(rows, labels)
    with pytest.raises(error, match="^probabilities: expected " + message):
        metrics.rejection_rate(rows, 0.5)
    with pytest.raises(error, match="^seen_probabilities: expected " + message):
        metrics.oscr(rows, labels, GOOD)
    with pytest.raises(error, match="^unseen_probabilities: expected " + message):
        metrics.oscr(GOOD, [0, 0], rows)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 2], RangeError, r"labels: expected labels in 0 .. 1, got 2 at 1"),
        ([-1, 0], RangeError, r"labels: expected labels in 0 .. 1, got -1 at 0"),
        ([0], ShapeError, r"labels: expected images = 2, got 1"),
        ([0.0, 1.0], DTypeError, r"labels: expected integers, got torch.float32"),
        ([True, False], DTypeError, r"labels: expected integers, got torch.bool"),
    ],
)
def test_rejects_bad_labels(labels, error, message):
    for metric in (metrics.accuracy, metrics.balanced_accuracy, metrics.confusion_matrix):
        with pytest.raises(error, match=message):
            metric(GOOD, labels)


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.fpr_at_tpr, metrics.aupr])
def test_rejects_bad_scores(metric):
    with pytest.raises(ShapeError, match=r"seen_scores: expected at least one score, got none"):
        metric(torch.zeros(0), [0.5])
    with pytest.raises(ShapeError, match=r"unseen_scores: expected shape \(images\), got \(1, 1\)"):
        metric([0.5], [[0.5]])
    with pytest.raises(RangeError, match=r"unseen_scores: expected finite numbers, got nan at \(1,\)"):
        metric([0.5], [0.5, math.nan])
    with pytest.raises(DTypeError, match=r"seen_scores: expected a floating-point dtype, got torch.int64"):
        metric([1], [0.5])


def test_rejects_bad_options():
    with pytest.raises(RangeError, match=r"threshold: expected 0 .. 1, got 1.5"):
        metrics.rejection_rate(GOOD, 1.5)
    with pytest.raises(RangeError, match=r"threshold: expected 0 .. 1, got nan"):
        metrics.rejection_rate(GOOD, math.nan)
    with pytest.raises(RangeError, match=r"tpr: expected > 0, got 0"):
        metrics.fpr_at_tpr([0.5], [0.5], tpr=0)
    with pytest.raises(RangeError, match=r"tpr: expected 0 .. 1, got 1.1"):
        metrics.fpr_at_tpr([0.5], [0.5], tpr=1.1)
    with pytest.raises(RangeError, match=r"positive: expected 'seen' or 'unseen', got 'real'"):
        metrics.aupr([0.5], [0.5], positive="real")
    with pytest.raises(ShapeError, match=r"unseen_probabilities: expected 2 generators, got 3"):
        metrics.oscr(GOOD, [0, 1], [[0.2, 0.3, 0.5]])
