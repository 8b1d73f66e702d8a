"""What is guaranteed, by simulation: new pictures drawn from where the calibration pictures came from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from bmrl.errors import ConfigError, RangeError
from bmrl.inference import Decider, Limits, conformal_limit, fit_temperature, risk_coverage, risk_limit
from bmrl.inference.calibration import limits_for, outcomes
from bmrl.inference.scores import SCORES, FittingData
from bmrl.models import CalibrationAnswers, FittedDecision

ROUNDS = 3000


@pytest.mark.parametrize(("count", "accept"), [(19, 0.95), (30, 0.9), (100, 0.8), (9, 0.5), (50, 0.99 - 0.04)])
@pytest.mark.parametrize("ties", [False, True])
def test_a_new_picture_is_accepted_as_often_as_was_asked(count, accept, ties):
    """And hardly more often, without ties: one rank of n + 1 pictures at most."""
    rng = np.random.default_rng(count)
    draws = rng.standard_normal((ROUNDS, count + 1))
    draws = draws.round() if ties else draws
    accepted = [new >= conformal_limit(torch.tensor(old), accept) for *old, new in draws.tolist()]
    error = 4 * math.sqrt(accept * (1 - accept) / ROUNDS)
    assert np.mean(accepted) >= accept - error
    if not ties:
        rank = math.floor((1 - accept) * (count + 1) + 1e-9)
        assert np.mean(accepted) <= 1 - (rank - 1) / (count + 1) + error


def draw(rng, count, classes=4):
    """Logits that are right in four of five cases and too sure of themselves, and the labels."""
    labels = rng.integers(0, classes, count)
    logits = rng.standard_normal((count, classes))
    logits[np.arange(count), labels] += 1.5
    return torch.tensor(8 * logits), torch.tensor(labels)


@pytest.mark.parametrize("max_error", [0.02, 0.05, 0.2])
def test_wrong_names_are_as_rare_as_was_asked(max_error):
    """The whole procedure, whose temperature and limit are fitted to the same pictures."""
    rng = np.random.default_rng(0)
    wrong, rounds = [], 400
    for _ in range(rounds):
        logits, labels = draw(rng, 60)
        temperature = fit_temperature(logits, labels)
        best = (logits / temperature).softmax(1).max(1)
        limit = risk_limit(best.values, best.indices == labels, max_error)
        logits, labels = draw(rng, 200)
        best = (logits / temperature).softmax(1).max(1)
        wrong.append(float(((best.values >= limit) & (best.indices != labels)).double().mean()))
    assert np.mean(wrong) <= max_error + 3 * np.std(wrong) / math.sqrt(rounds)
    assert np.mean(wrong) > 0.2 * max_error - 1 / 61  # one of 61 pictures is kept for the new one


CENTERS = 1.5 * np.random.default_rng(99).standard_normal((3, 4))


def drawn(rng, count):
    """Logits, embeddings and labels of pictures of three classes."""
    labels = np.concatenate((np.arange(3), rng.integers(0, 3, count - 3)))
    embeddings = CENTERS[labels] + rng.standard_normal((count, 4))
    logits = -2 * ((embeddings[:, None] - CENTERS) ** 2).sum(2) + rng.standard_normal((count, 3))
    return torch.tensor(logits), torch.tensor(embeddings), torch.tensor(labels)


@pytest.mark.parametrize(("name", "cost"), [("energy", 0), ("mahalanobis", 0), ("combined", 0.015)])
def test_acceptance_of_the_whole_procedure(name, cost):
    """Temperature and score are chosen on the pictures that the limit comes from; only a combination's choice costs."""
    rng = np.random.default_rng(3)
    accept, shares = 0.8, []
    for _ in range(80):
        (logits, embeddings, labels), calibration, new = drawn(rng, 60), drawn(rng, 100), drawn(rng, 300)
        temperature = fit_temperature(calibration[0], calibration[2])
        held_out = FittingData(logits=calibration[0] / temperature, embeddings=calibration[1], labels=calibration[2])
        fitting = FittingData(logits=logits / temperature, embeddings=embeddings, labels=labels, held_out=held_out)
        decider = Decider(SCORES[name].fit(fitting), temperature)
        limit = conformal_limit(decider(*calibration[:2])[1], accept)
        shares.append(float((decider(*new[:2])[1].double() >= limit).double().mean()))
    assert np.mean(shares) >= accept - cost - 3 * np.std(shares) / math.sqrt(len(shares))


def test_every_version_is_as_safe_as_was_asked():
    rng = np.random.default_rng(1)
    shape = (3, 200)
    harm = np.array([[0.0], [0.5], [1.0]])
    right = rng.random(shape) > 0.1 + 0.1 * harm
    probabilities = np.clip(rng.random(shape) * 0.5 + 0.5 * right, 0, 1)
    answers = CalibrationAnswers(
        versions=("as it is", "a", "b"),
        scores=torch.tensor(rng.standard_normal(shape) - harm),
        probabilities=torch.tensor(probabilities),
        right=torch.tensor(right),
    )
    fitted = FittedDecision(score="energy", state={}, temperature=1.0, answers=answers)
    limits = limits_for(fitted, accept=0.9, typical=0.7, max_error=0.05)
    assert (limits.score, limits.accept, limits.typical, limits.max_error) == ("energy", 0.9, 0.7, 0.05)
    for shares in outcomes(answers, limits).values():
        assert sum(shares) == pytest.approx(1)
        assert shares.unseen <= 0.1
        assert shares.wrong <= 0.05
        assert shares.unseen + shares.uncertain <= 1
    alone = limits_for(
        FittedDecision(
            score="energy",
            state={},
            temperature=1.0,
            answers=CalibrationAnswers(
                versions=("as it is",),
                scores=answers.scores[:1],
                probabilities=answers.probabilities[:1],
                right=answers.right[:1],
            ),
        ),
        accept=0.9,
        typical=0.7,
        max_error=0.05,
    )
    assert alone.unseen > limits.unseen
    pooled = conformal_limit(answers.scores.flatten(), 0.7)
    assert limits.seen == max(limits.unseen, pooled)
    assert alone.seen == conformal_limit(answers.scores[0], 0.7)


def test_a_version_without_a_trace_does_not_let_every_score_pass():
    scores = torch.linspace(0, 1, 100, dtype=torch.float64).repeat(3, 1)
    scores[2] -= 100
    answers = CalibrationAnswers(
        versions=("as it is", "a", "destroyed"),
        scores=scores,
        probabilities=torch.full((3, 100), 0.9),
        right=torch.ones(3, 100, dtype=torch.bool),
    )
    fitted = FittedDecision(score="energy", state={}, temperature=1.0, answers=answers)
    limits = limits_for(fitted, accept=0.9, typical=0.5, max_error=0.1)
    assert limits.unseen < -99
    assert limits.seen > 0


@given(st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7, 0.9, 0.95]), st.booleans()), min_size=1, max_size=40),
       st.integers(1, 20))  # fmt: skip
def test_the_limit_of_the_risk_is_the_lowest_that_is_safe(pictures, twentieths):
    values, right = (torch.tensor(column) for column in zip(*pictures, strict=True))
    values = values.double()
    max_error, count = twentieths / 21, len(pictures)

    def safe(limit):
        wrong = int(((values >= limit) & ~right).sum())
        return 21 * (wrong + 1) <= twentieths * (count + 1)  # exact: (n R + 1) / (n + 1) <= max_error

    if not safe(2):
        with pytest.raises(ConfigError, match=r"max_error: expected \d+ calibration pictures or more for .*, got \d+"):
            risk_limit(values, right, max_error)
        return
    limit = risk_limit(values, right, max_error)
    assert safe(limit)
    lower = values[values < limit]
    assert limit == 0 or (len(lower) and not safe(float(lower.max())))


@given(st.floats(0.1, 0.9))
def test_an_error_is_below_its_limit_also_between_neighboring_numbers(error):
    values = torch.tensor([error] + 9 * [math.nextafter(error, 1)], dtype=torch.float64)
    assert risk_limit(values, torch.tensor([False] + 9 * [True]), 0.1) > error


@example(percent=90, count=9)  # 1 - .9 is less than .1
@example(percent=80, count=9)
@example(percent=95, count=199)
@given(st.integers(1, 99), st.integers(1, 400))
def test_ranks_are_those_of_exact_fractions(percent, count):
    """The limit of 1, 2, ..., n lies below the k-th, k the whole part of (1 - accept)(n + 1)."""
    rank = (100 - percent) * (count + 1) // 100
    if rank:
        expected = min(rank, count) - 0.5 if count > 1 else 1.0
        assert conformal_limit(torch.arange(1.0, count + 1), percent / 100) == expected
    else:
        with pytest.raises(ConfigError):
            conformal_limit(torch.arange(1.0, count + 1), percent / 100)


def test_how_many_pictures_it_takes_is_said():
    with pytest.raises(ConfigError, match=r"accept: expected 19 calibration pictures or more for 0.95, got 18"):
        conformal_limit(torch.arange(18.0), 0.95)
    conformal_limit(torch.arange(19.0), 0.95)
    with pytest.raises(
        ConfigError, match="accept: expected infinitely many calibration pictures or more for 1, got 18"
    ):
        conformal_limit(torch.arange(18.0), 1)
    with pytest.raises(ConfigError, match=r"max_error: expected 99 calibration pictures or more for 0.01, got 98"):
        risk_limit(torch.rand(98), torch.ones(98, dtype=torch.bool), 0.01)
    assert risk_limit(torch.rand(99), torch.ones(99, dtype=torch.bool), 0.01) == 0.0
    with pytest.raises(ConfigError, match="expected a model whose errors can be told by their probability"):
        risk_limit(torch.ones(99), torch.zeros(99, dtype=torch.bool), 0.01)


@pytest.mark.parametrize("seed", range(4))
def test_temperature_is_that_of_another_optimizer(seed):
    logits, labels = draw(np.random.default_rng(seed), 80)

    def loss(log_temperature):
        rows = log_softmax(logits.numpy() / math.exp(log_temperature), axis=1)
        return -rows[np.arange(len(labels)), labels.numpy()].mean()

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(found.x), rel=1e-4)


def test_temperature_of_answers_that_are_all_right_stays_within_bounds():
    logits = torch.eye(3).repeat(4, 1)
    assert 0.05 <= fit_temperature(logits, torch.arange(3).repeat(4)) < 1
    assert fit_temperature(logits, torch.arange(3).repeat(4).roll(1)) == 20.0
    with pytest.raises(RangeError, match="logits: expected at least one image, got none"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30))
def test_risk_and_coverage_by_brute_force(pictures):
    scores, right = (torch.tensor(column) for column in zip(*pictures, strict=True))
    curve = risk_coverage(scores.double(), right)
    expected = []
    for level in sorted(set(scores.tolist()), reverse=True):
        answered = [correct for score, correct in pictures if score >= level]
        expected.append((len(answered) / len(pictures), answered.count(False) / len(answered)))
    assert curve.coverage.tolist() == pytest.approx([share for share, _ in expected])
    assert curve.risk.tolist() == pytest.approx([risk for _, risk in expected])
    each = [next(risk for share, risk in expected if share >= (place + 1) / len(pictures) - 1e-12)
            for place in range(len(pictures))]  # fmt: skip
    assert curve.area == pytest.approx(sum(each) / len(each))


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(0, 1), st.floats(-20, 20), st.floats(0, 1), st.floats(0, 3))
def test_a_verdict_only_gets_better_with_score_and_probability(unseen, gap, needed, score, probability, more):
    limits = Limits(unseen=unseen, seen=unseen + gap, probability=needed, score="energy")
    order = {"unseen": 0, "uncertain": 1, "seen": 2}

    def verdict(score, probability):
        values = torch.tensor([score], dtype=torch.float64), torch.tensor([probability], dtype=torch.float64)
        return order[limits.verdicts(*values)[0]]

    assert verdict(score + more, probability) >= verdict(score, probability)
    assert verdict(score, min(1.0, probability + more)) >= verdict(score, probability)
    assert Limits.from_dict(limits.to_dict()) == limits


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unseen": 1.0, "seen": 0.5, "probability": 0.5}, "seen: expected at least unseen 1.0, got 0.5"),
        ({"unseen": math.nan, "seen": 0.5, "probability": 0.5}, "unseen: expected a finite number, got nan"),
        ({"unseen": 0.0, "seen": math.inf, "probability": 0.5}, "seen: expected a finite number, got inf"),
        ({"unseen": 0.0, "seen": 0.5, "probability": 1.5}, r"probability: expected 0 \.\. 1, got 1.5"),
        ({"unseen": 0.0, "seen": 0.5}, "limits: expected the fields of Limits, got unseen, seen"),
    ],
)
def test_limits_that_are_none(fields, message):
    with pytest.raises(RangeError, match=message):
        Limits.from_dict(fields)


def test_reasons():
    asked = {"accept": 0.95, "typical": 0.8, "max_error": 0.01}
    limits = Limits(unseen=-9.0, seen=-4.0, probability=0.8, score="mahalanobis", **asked)
    reach = "which at least {} % of seen pictures reach"
    risk = "a limit at which at most 1 % of all seen pictures get a wrong name"
    assert limits.reason("unseen", -12.5, 0.99) == f"score -12.500 is below -9.000, {reach.format(95)}"
    assert limits.reason("uncertain", -5.0, 0.99) == f"score -5.000 is below -4.000, {reach.format(80)}"
    assert limits.reason("uncertain", -3.0, 0.7) == f"probability 0.700 is below 0.800, {risk}"
    assert limits.reason("seen", -3.0, 0.9) == (
        f"score -3.000 reaches -4.000, and probability 0.900 reaches 0.800, {risk}"
    )
    plain = Limits.of_threshold(0.7)
    assert plain.reason("unseen", 0.69996, 0.69996) == "probability 0.69996 is below the threshold 0.7"
    assert plain.reason("seen", 0.7, 0.7) == "probability 0.700 is not below the threshold 0.7"


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_numbers_of_a_reason_say_what_it_says(value, limit):
    limits = Limits(unseen=limit, seen=limit, probability=0.0, score="energy")
    scores = torch.tensor([value], dtype=torch.float64)
    (verdict,) = limits.verdicts(scores, torch.ones(1))
    words = limits.reason(verdict, value, 1.0).split(",")[0].split()
    shown, against = float(words[1]), float(words[-1])
    assert (shown < against) == (verdict == "unseen") == ("below" in words)
