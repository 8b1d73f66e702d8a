"""No public function of bmrl.evaluation takes nonsense: each argument is named in an error of ours, on one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bmrl.errors import BMRLError
from bmrl.evaluation import Predictions, evaluate, format_metrics, metrics, predict, render_report, summarize
from bmrl.evaluation.detection import detection_metrics, real_probability
from bmrl.evaluation.image_statistics import color_spectrum_statistics
from bmrl.evaluation.intervals import wilson_interval
from bmrl.evaluation.report.plots import embedding_map, markers, score_histogram, threshold_curves
from bmrl.evaluation.report.projection import project
from bmrl.evaluation.summary import Summary
from bmrl.evaluation.yardsticks import shortcut_baseline
from bmrl.inference import Attributor, attributions_from_probabilities, decide

GOOD = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
LABELS = torch.tensor([0, 2])
SCORES = torch.tensor([0.5, 0.6])
REAL = torch.tensor([True, False])

# The function, its good arguments by name, and for each argument what is to be refused.
NUMBERS = ("x", None, True, float("nan"), -0.1, 7, [0.5])
COUNTS = ("x", None, True, 1.5, 0, -1, [1])
PROBABILITIES = (
    "x",
    None,
    [],
    3,
    [[1, 0]],
    [[0.5]],
    [[0.5, "a"]],
    [[0.5, 0.2, 0.1]],
    [[float("nan")] * 3],
    [[0.5], [0.5, 0]],
)
SCORES_REFUSED = ("x", None, [], 0.5, [1, 2], [[0.5]], [float("inf")], ["a"])

METRICS = {
    decide: {"probabilities": (GOOD, PROBABILITIES)},
    metrics.confusion_matrix: {
        "probabilities": (GOOD, PROBABILITIES),
        "labels": (LABELS, ("x", None, [0], [0, 3], [0, -1], [0.0, 1.0], [True, False])),
    },
    metrics.accuracy: {"probabilities": (GOOD, PROBABILITIES), "labels": (LABELS, ("x", [0], [0, 3], [[0, 1]]))},
    metrics.balanced_accuracy: {"probabilities": (GOOD, PROBABILITIES), "labels": (LABELS, ("x", [0], [0, 3]))},
    metrics.rejection_rate: {"probabilities": (GOOD, PROBABILITIES), "threshold": (0.5, NUMBERS)},
    metrics.auroc: {"seen_scores": (SCORES, SCORES_REFUSED), "unseen_scores": (SCORES, SCORES_REFUSED)},
    metrics.fpr_at_tpr: {
        "seen_scores": (SCORES, SCORES_REFUSED),
        "unseen_scores": (SCORES, SCORES_REFUSED),
        "tpr": (0.9, (*NUMBERS, 0)),
    },
    metrics.aupr: {
        "seen_scores": (SCORES, SCORES_REFUSED),
        "unseen_scores": (SCORES, SCORES_REFUSED),
        "positive": ("seen", ("x", None, ["seen"])),
    },
    metrics.oscr: {
        "seen_probabilities": (GOOD, PROBABILITIES),
        "seen_labels": (LABELS, ([0], "x")),
        "unseen_probabilities": (GOOD, (*PROBABILITIES, [[0.5, 0.5]])),
    },
    wilson_interval: {
        "total": (4, COUNTS),
        "successes": (2, ("x", None, True, 1.5, 5, -1)),
        "confidence": (0.9, (*NUMBERS, 0, 1)),
    },
    detection_metrics: {
        "probability_real": (SCORES, SCORES_REFUSED),
        "is_real": (REAL, (None, [True, False], REAL[:1], LABELS)),
    },
    color_spectrum_statistics: {
        "images": (
            torch.zeros(1, 3, 8, 8),
            (
                None,
                "x",
                [[1]],
                torch.zeros(3, 8, 8),
                torch.zeros(1, 1, 8, 8),
                torch.zeros(1, 3, 8, 8, dtype=torch.int64),
            ),
        )
    },
    project: {
        "embeddings": (
            torch.full((6, 3), 0.25),
            (
                None,
                "x",
                torch.full((4, 3), 0.25),
                torch.full((6,), 0.25),
                torch.ones(6, 3, dtype=torch.int64),
                torch.full((6, 3), torch.nan),
            ),
        ),
        "seed": (0, ("x", None, True, -1, 1.5, 2**40)),
    },
    markers: {"num_seen": (2, ("x", None, True, -1, 1.5)), "num_unseen": (2, ("x", None, True, -1, 1.5))},
    score_histogram: {
        "seen": (SCORES, (None, "x", GOOD)),
        "unseen": (SCORES, (None, GOOD)),
        "thresholds": ([0.5], ([7], ["a"])),
    },
    threshold_curves: {
        "seen": (SCORES, (None, "x", GOOD)),
        "unseen": (SCORES, (None, GOOD)),
        "thresholds": ([0.5], ([7], ["a"])),
    },
    embedding_map: {
        "points": (torch.full((2, 2), 0.25), (None, "x", torch.full((2, 3), 0.25))),
        "kinds": ([0, 1], ([0],)),
        "styles": (markers(1, 1), ()),
    },
}


def cases(table):
    for function, arguments in table.items():
        good = {name: value for name, (value, _) in arguments.items()}
        for name, (_, refused) in arguments.items():
            for value in refused:
                yield pytest.param(function, good, name, value, id=f"{function.__name__}-{name}-{value!r}"[:70])


@pytest.mark.parametrize(("function", "good", "name", "value"), list(cases(METRICS)))
def test_metrics_refuse_nonsense(function, good, name, value):
    refuses(function, good, name, value)


@pytest.mark.parametrize("function", METRICS, ids=lambda function: function.__name__)
def test_metrics_take_what_the_table_calls_good(function):
    function(**{name: value for name, (value, _) in METRICS[function].items()})


def refuses(function, good, name, value, *also):
    with pytest.raises(BMRLError) as raised:
        function(**good | {name: value})
    message = str(raised.value)
    assert "\n" not in message
    assert message.split(":")[0] in {name, *also}, message
    assert "expected" in message


THRESHOLDS = ([], [7], ["a"], 0.5, "0.5", None, [None], [float("nan")], [True])


def test_predictions_and_what_is_made_of_them(model, manifest, classes, tmp_path):
    found = predict(model, manifest)
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(Predictions) if field.init}
    for name, values in {
        "generators": (None, "abc", ["red"]),
        "probabilities": (*PROBABILITIES, GOOD),
        "embeddings": (None, [[1.0]], torch.zeros(3), torch.zeros(2, 2)),
    }.items():
        for value in values:
            refuses(Predictions, fields, name, value)
    for value in THRESHOLDS:
        refuses(summarize, {"predictions": found}, "thresholds", value)
    for value in (None, "x", [], found.probabilities):
        refuses(summarize, {"thresholds": [0.5]}, "predictions", value)
        refuses(render_report, {}, "evaluation", value)
    good = summarize(found, [0.5]).to_dict()
    assert Summary.from_dict(good) == summarize(found, [0.5])
    wrong = {"unseen": 3}, {"thresholds": 3}, {"thresholds": [{}]}, {"seen": {"accuracy": "high"}}
    for content in (None, "x", {}, [], {"seen": {}}, *(good | change for change in wrong)):
        refuses(Summary.from_dict, {}, "content", content, "metrics")
        refuses(format_metrics, {}, "models", {"x": content}, "metrics")
    for value in (None, [True] * 9, torch.ones(9), torch.ones(3, dtype=torch.bool)):
        refuses(found.select, {}, "images", value)
    sources = ["a"] * len(found.rows)
    good = {"probabilities": found.probabilities, "generators": classes, "limits": 0.5, "sources": sources}
    assert len(attributions_from_probabilities(**good)) == len(sources)
    for name, values in {
        "probabilities": PROBABILITIES,
        "generators": (None, "abc", ["red", "green", "photo"]),
        "limits": NUMBERS,
        "sources": (None, 3, "abcdefghi", ["a"]),
    }.items():
        for value in values:
            refuses(attributions_from_probabilities, good, name, value, "threshold")  # which a number is
    for value in (None, "abc", ["red", "green", "photo"]):
        refuses(real_probability, {"probabilities": found.probabilities}, "generators", value)


DEVICES = ("tpu0", "", 1.5, [], "meta", "cuda:99")


def test_running_a_model(model, manifest, tmp_path):
    for value in (None, 3, b"x", [], torch.nn.Linear(1, 1), Path):
        refuses(Attributor, {}, "model", value)
        refuses(predict, {"data": manifest}, "model", value)
        refuses(evaluate, {"data": manifest, "out": tmp_path / "o"}, "model", value)
    for value in COUNTS:
        refuses(Attributor, {"model": model}, "batch_size", value)
        refuses(predict, {"model": model, "data": manifest}, "batch_size", value)
        refuses(evaluate, {"model": model, "data": manifest, "out": tmp_path / "o"}, "batch_size", value)
    for value in DEVICES:
        refuses(Attributor, {"model": model}, "device", value)
        refuses(predict, {"model": model, "data": manifest}, "device", value)
        refuses(evaluate, {"model": model, "data": manifest, "out": tmp_path / "o"}, "device", value)
    for value in ("x", True, float("nan"), -0.1, 7, [0.5]):
        refuses(Attributor, {"model": model}, "threshold", value)
    for value in (None, "holdout", [], 3):
        refuses(predict, {"model": model, "data": manifest}, "split", value)
        refuses(evaluate, {"model": model, "data": manifest, "out": tmp_path / "o"}, "split", value)
        refuses(shortcut_baseline, {"data": manifest}, "split", value)
    for value in COUNTS:
        refuses(shortcut_baseline, {"data": manifest}, "image_size", value)
        refuses(shortcut_baseline, {"data": manifest}, "max_per_generator", value)
    for value in (None, 3, []):
        refuses(shortcut_baseline, {}, "data", value)
        refuses(predict, {"model": model}, "data", value)
    refuses(predict, {"model": model, "data": manifest}, "read", 3)
    good = {"model": model, "data": manifest, "out": tmp_path / "o"}
    for value in THRESHOLDS:
        if value is not None:
            refuses(evaluate, good, "thresholds", value)
    for name, values in {
        "data": (None, 3, []),
        "out": (None, 3, ""),
        "baselines": (3, ["x"], {"x": 3}, {"x": {}}),
        "yardsticks": ("no", None, 1, ["no"], [1]),
    }.items():
        for value in values:
            refuses(evaluate, good, name, value)
    assert not (tmp_path / "o").exists()
