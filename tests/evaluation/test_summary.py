from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bmrl.data.row import Row
from bmrl.errors import DataError, RangeError
from bmrl.evaluation import Predictions, Summary, summarize
from bmrl.inference import attributions_from_probabilities
from tests.evaluation.conftest import CLASSES


def row(name, number, manipulation="EFS", architecture="GAN", role="seen"):
    return Row(f"{name}{number}.png", name, manipulation, architecture, role, "test", f"{name}{number}")


@pytest.fixture
def predictions(classes):
    """Six seen and three unseen images; each is worked through in the tests below."""
    rows = [
        (row("red", 0), [0.8, 0.1, 0.1]),
        (row("red", 1), [0.6, 0.3, 0.1]),
        (row("red", 2), [0.1, 0.9, 0.0]),  # wrong
        (row("red", 3), [1.0, 0.0, 0.0]),
        (row("photo", 0, "none", "none"), [0.0, 0.25, 0.75]),
        (row("photo", 1, "none", "none"), [0.5, 0.1, 0.4]),  # wrong
        (row("gray", 0, "AM", "GAN", "unseen"), [0.4, 0.3, 0.3]),
        (row("snapshot", 0, "none", "none", "unseen"), [0.05, 0.15, 0.8]),
        (row("snapshot", 1, "none", "none", "unseen"), [0.3, 0.1, 0.6]),
    ]
    probabilities = torch.tensor([values for _, values in rows], dtype=torch.float64)
    return Predictions(classes, tuple(made for made, _ in rows), probabilities, torch.zeros(9, 2))


def wilson(successes, total):
    interval = binomtest(successes, total).proportion_ci(method="wilson")
    return pytest.approx([interval.low, interval.high], abs=1e-9)


def test_seen(predictions):
    seen = summarize(predictions, [0.7]).seen
    assert seen["num_images"] == 6
    assert seen["accuracy"] == pytest.approx(4 / 6)
    assert seen["accuracy_interval"] == wilson(4, 6)
    assert seen["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert seen["confusion"] == [[3, 1, 0], [0, 0, 0], [1, 0, 1]]
    red, green, photo = seen["per_generator"]
    assert red == {
        "generator": "red", "manipulation": "EFS", "architecture": "GAN", "num_images": 4, "num_correct": 3,
        "recall": 0.75, "recall_interval": wilson(3, 4),
    }  # fmt: skip
    assert (green["num_images"], green["recall"], green["recall_interval"]) == (0, None, None)
    assert (photo["generator"], photo["recall"]) == ("photo", 0.5)


def test_unseen(predictions):
    unseen = summarize(predictions, [0.5, 0.7]).unseen
    # scores: seen 0.8 0.6 0.9 1.0 0.75 0.5, unseen 0.4 0.8 0.6
    assert unseen["num_images"] == 3
    assert unseen["auroc"] == pytest.approx((2.5 + 1.5 + 3 + 3 + 2 + 1) / 18)
    assert unseen["fpr95"] == pytest.approx(2 / 3)
    assert unseen["oscr"] == pytest.approx((2.5 + 1.5 + 0 + 3 + 2 + 0) / 18)
    assert unseen["aupr_seen"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 5 + 5 / 7 + 6 / 8) / 6)
    assert unseen["aupr_unseen"] == pytest.approx((1 / 1 + 2 / 4 + 3 / 7) / 3)
    gray, snapshot = unseen["per_generator"]
    assert gray == {
        "generator": "gray", "manipulation": "AM", "architecture": "GAN", "num_images": 1, "auroc": 1.0,
        "rejection": [1.0, 1.0], "rejection_interval": [wilson(1, 1), wilson(1, 1)], "named": [1, 0, 0],
    }  # fmt: skip
    assert snapshot["rejection"] == [0.0, 0.5]
    assert snapshot["rejection_interval"] == [wilson(0, 2), wilson(1, 2)]
    assert snapshot["named"] == [0, 0, 2]
    assert snapshot["auroc"] == pytest.approx((1.5 + 0.5 + 2 + 2 + 1 + 0) / 12)


def test_thresholds(predictions):
    low, high = summarize(predictions, [0.5, 0.75]).thresholds
    assert low["threshold"] == 0.5
    assert low["seen_acceptance"] == 1.0
    assert low["seen_accepted_and_right"] == pytest.approx(4 / 6)
    assert high["seen_acceptance"] == pytest.approx(4 / 6)  # 0.75 itself is accepted
    assert high["seen_acceptance_interval"] == wilson(4, 6)
    assert high["seen_accepted_and_right"] == pytest.approx(3 / 6)
    assert high["unseen_rejection"] == pytest.approx(2 / 3)
    assert high["unseen_rejection_interval"] == wilson(2, 3)
    assert high["unseen_rejection_mean"] == pytest.approx((1 + 1 / 2) / 2)


def test_detection(predictions):
    detection = summarize(predictions, [0.7]).detection
    assert detection["reason"] is None
    # p(real): fake 0.1 0.1 0 0, real 0.75 0.4; unseen: fake 0.3, real 0.8 0.6
    assert detection["seen"] == {
        "num_real": 2, "num_fake": 4, "accuracy": pytest.approx(5 / 6), "balanced_accuracy": pytest.approx(0.75),
        "auroc": 1.0,
    }  # fmt: skip
    assert detection["all"]["num_real"] == 4
    assert detection["all"]["accuracy"] == pytest.approx(8 / 9)
    assert detection["all"]["auroc"] == 1.0


def test_without_real_classes_detection_says_why(predictions, classes):
    fakes = Predictions(classes[:2], predictions.rows[:3], torch.tensor([[0.9, 0.1]] * 3), torch.zeros(3, 2))
    detection = summarize(fakes, [0.7]).detection
    assert detection["seen"] is None
    assert detection["all"] is None
    assert detection["reason"] == "generators: expected real and generated classes, got generated ones only"


def test_without_unseen_images(predictions, classes):
    seen = Predictions(classes, predictions.rows[:6], predictions.probabilities[:6], predictions.embeddings[:6])
    summary = summarize(seen, [0.7])
    assert summary.unseen is None
    assert summary.thresholds[0]["unseen_rejection"] is None
    assert summary.thresholds[0]["unseen_rejection_interval"] is None
    assert summary.metrics["auroc"] is None
    assert summary.metrics["accuracy"] == pytest.approx(4 / 6)


def test_metrics_and_json(predictions):
    summary = summarize(predictions, [0.7, 0.9])
    content = summary.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content) == ["seen", "unseen", "thresholds", "detection"]
    assert Summary.from_dict(json.loads(json.dumps(content))) == summary
    found = summary.metrics
    at_a_threshold = ["seen_acceptance", "seen_accepted_and_right", "unseen_rejection", "unseen_rejection_mean"]
    assert list(found) == [
        "accuracy", "balanced_accuracy", "auroc", "fpr95", "aupr_seen", "aupr_unseen", "oscr",
        *(f"{name}@0.7" for name in at_a_threshold), *(f"{name}@0.9" for name in at_a_threshold),
    ]  # fmt: skip
    assert found["oscr"] == summary.unseen["oscr"]
    assert found["seen_acceptance@0.9"] == pytest.approx(2 / 6)
    assert found["unseen_rejection@0.9"] == 1.0


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any), min_size=9, max_size=9),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_a_summary_counts_the_answers_that_the_attributor_gives(weights, threshold):
    """Ties and scores at the threshold are common here: both must decide them the same way."""
    rows = [row("red", n) for n in range(3)] + [row("photo", n, "none", "none") for n in range(3)]
    rows += [row("gray", n, "AM", "GAN", "unseen") for n in range(3)]
    probabilities = torch.tensor([[weight / sum(part) for weight in part] for part in weights], dtype=torch.float64)
    predictions = Predictions(CLASSES, tuple(rows), probabilities, torch.zeros(9, 2))
    summary, answers = summarize(predictions, [threshold]), predictions.attributions(threshold)
    assert [answer.source for answer in answers] == [one.path for one in rows]
    forced = attributions_from_probabilities(probabilities, CLASSES, 0.0, [one.path for one in rows])
    (at,) = summary.thresholds
    right = [answer.generator == one.generator for answer, one in zip(answers[:6], rows, strict=False)]
    assert at["seen_acceptance"] == sum(answer.seen for answer in answers[:6]) / 6
    assert at["seen_accepted_and_right"] == sum(right) / 6
    assert at["unseen_rejection"] == sum(not answer.seen for answer in answers[6:]) / 3
    named = [[answer.generator for answer in forced[:3]], [], [answer.generator for answer in forced[3:6]]]
    assert summary.seen["confusion"] == [[part.count(one.name) for one in CLASSES] for part in named]
    (gray,) = summary.unseen["per_generator"]
    assert gray["named"] == [[answer.generator for answer in forced[6:]].count(one.name) for one in CLASSES]


def test_rejects(predictions, classes):
    unseen = Predictions(classes, predictions.rows[6:], predictions.probabilities[6:], predictions.embeddings[6:])
    with pytest.raises(DataError, match=r"^predictions: expected .*seen.*, got unseen"):
        summarize(unseen, [0.7])
    with pytest.raises(RangeError, match=r"thresholds: expected at least one, got none"):
        summarize(predictions, [])
    with pytest.raises(RangeError, match=r"thresholds: expected 0 .. 1, got nan"):
        summarize(predictions, [0.7, math.nan])
