"""What becomes of images, worked out by hand, and the controls within one source."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError
from bmrl.evaluation import Predictions, evaluate, predict
from bmrl.evaluation.intervals import wilson_interval
from bmrl.evaluation.outcomes import outcomes
from bmrl.evaluation.sources import within_sources
from bmrl.generators import Generator
from bmrl.inference import Attributor, Limits
from bmrl.models import CalibrationAnswers, FittedDecision

CLASSES = (
    Generator(name="photo", manipulation="none", architecture="none"),
    Generator(name="edit", manipulation="AM", architecture="GAN"),
    Generator(name="other", manipulation="EFS", architecture="GAN"),
)
FAMILIES = {"photo": ("none", "none"), "edit": ("AM", "GAN"), "other": ("EFS", "GAN"), "odd": ("FS", "GAN")}
LIMITS = Limits(unseen=-2.0, seen=-1.0, probability=0.5, score="energy")


def predictions(*images, limits=LIMITS):
    """Of ``(generator, source, probabilities, score)``."""
    rows = [
        Row(f"{place}.png", name, *FAMILIES[name], "unseen" if name == "odd" else "seen", "test", f"{place}", source)
        for place, (name, source, _, _) in enumerate(images)
    ]
    rows_of = torch.tensor([row for _, _, row, _ in images], dtype=torch.float64)
    scores = torch.tensor([score for _, _, _, score in images], dtype=torch.float64)
    return Predictions(CLASSES, tuple(rows), rows_of, torch.zeros(len(rows), 2), scores=scores, limits=limits)


def test_shares_by_hand():
    found = predictions(
        ("photo", "", [0.8, 0.1, 0.1], 0.0),  # named, rightly
        ("photo", "", [0.3, 0.6, 0.1], 1.0),  # named, wrongly
        ("edit", "", [0.3, 0.4, 0.3], 1.0),  # right, but not probable enough
        ("edit", "", [0.1, 0.8, 0.1], -1.5),  # right, but not typical enough
        ("other", "", [0.1, 0.1, 0.8], -3.0),  # right, but called unseen
        ("odd", "", [0.1, 0.1, 0.8], 0.5),  # named
        ("odd", "", [0.4, 0.3, 0.3], 0.5),  # uncertain
        ("odd", "", [0.9, 0.1, 0.0], -2.5),  # called unseen
        ("odd", "", [0.9, 0.1, 0.0], -2.5),
    )
    entry, again = outcomes(found, {"half": found})
    assert (entry["version"], again["version"]) == ("as they are", "half")
    assert {name: value for name, value in entry.items() if name != "version"} == {
        name: value for name, value in again.items() if name != "version"
    }
    assert entry["accuracy"] == 0.8
    assert entry["balanced_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert (entry["right"], entry["wrong"], entry["uncertain"], entry["rejected"]) == (0.2, 0.2, 0.4, 0.2)
    assert (entry["unseen_named"], entry["unseen_uncertain"], entry["unseen_rejected"]) == (0.25, 0.25, 0.5)
    assert entry["auroc"] == pytest.approx((2 + 4 + 4 + 2 + 0) / 20)
    assert entry["oscr"] == pytest.approx((2 + 4 + 2 + 0) / 20)
    # by probability: 0.8 three times, all right; then 0.6, wrong; then 0.4, right
    assert entry["aurc"] == pytest.approx((0 + 0 + 0 + 1 / 4 + 1 / 5) / 5)
    assert entry["risk_coverage"] == [[0.6, 0.0], [0.8, 0.25], [1.0, pytest.approx(0.2)]]
    assert entry["wrong_interval"] == list(wilson_interval(1, 5))
    assert entry["unseen_named_interval"] == list(wilson_interval(1, 4))


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    rows = [("photo", "", [p, (1 - p) / 2, (1 - p) / 2], 0.0) for p in torch.linspace(0.4, 1, 1000).tolist()]
    (entry,) = outcomes(predictions(*rows), {})
    curve = entry["risk_coverage"]
    assert len(curve) <= 101
    assert curve[0][0] == 0.001
    assert curve[-1][0] == 1.0
    assert {risk for _, risk in curve} == {0.0}


def test_no_unseen_image_and_no_limits():
    (entry,) = outcomes(predictions(("photo", "", [1.0, 0.0, 0.0], 0.0)), {})
    assert entry["unseen_named_interval"] is None
    assert [entry[name] for name in ("unseen_named", "unseen_uncertain", "unseen_rejected", "auroc", "oscr")] == [
        None
    ] * 5
    with pytest.raises(DataError, match="predictions: expected some with the model's limits, got none"):
        outcomes(predictions(("photo", "", [1.0, 0.0, 0.0], 0.0), limits=None), {})


def test_within_sources_by_hand():
    found = predictions(
        ("photo", "a@1", [0.4, 0.1, 0.5], 3.0),  # among photo and edit: right
        ("photo", "a@2", [0.3, 0.4, 0.3], 1.0),  # wrong
        ("edit", "a@1", [0.1, 0.2, 0.7], 0.0),  # right
        ("other", "b", [0.1, 0.1, 0.8], 0.0),
        ("other", "c", [0.1, 0.1, 0.8], -5.0),
        ("other", "c", [0.8, 0.1, 0.1], 0.0),
        ("odd", "a@3", [0.1, 0.1, 0.8], 2.0),
        ("odd", "a@3", [0.1, 0.1, 0.8], 0.5),
        ("odd", "d", [0.1, 0.1, 0.8], 2.0),
    )
    assert within_sources(found, {"other": ("b",), "photo": ("a",), "edit": ()}) == {
        "reason": None,
        "reasons": {},
        "families": [],
        "pairs": [
            {"source": "a", "classes": ["photo", "edit"], "num_images": 3, "accuracy": pytest.approx(2 / 3),
             "accuracy_interval": list(wilson_interval(2, 3)), "recall": {"photo": 0.5, "edit": 1.0}},
        ],
        "unseen": [{"generator": "odd", "source": "a", "num_images": 2, "auroc": pytest.approx(3 / 4)}],
        "new": [{"generator": "other", "source": "c", "num_images": 2, "accuracy": 0.5, "rejected": 0.5}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        (("", ""), "the manifest has no column source, or an empty one"),
        (("a", "b"), "no source has both photographs and generated images, and none is new to a class"),
    ],
)
def test_what_is_not_available_is_said(sources, reason):
    found = predictions(("photo", sources[0], [1.0, 0.0, 0.0], 0.0), ("edit", sources[1], [1.0, 0.0, 0.0], 0.0))
    empty = {"reasons": {}, "families": [], "pairs": [], "unseen": [], "new": []}
    assert within_sources(found, {}) == {"reason": reason} | empty


def test_each_empty_control_has_its_reason():
    found = predictions(("photo", "a", [1.0, 0.0, 0.0], 0.0), ("edit", "a", [1.0, 0.0, 0.0], 0.0))
    told = within_sources(found, {})
    assert told["reason"] is None
    assert told["reasons"] == {
        "unseen": "no unseen generator shares a source with photographs that the model knows",
        "new": "no seen class has tested images of a source that it was not trained on",
    }


def test_accuracy_within_a_family_by_hand():
    classes = (*CLASSES, Generator(name="more", manipulation="EFS", architecture="diffusion"))
    rows = [Row(f"{i}.png", name, *family, "seen", "test", f"{i}") for i, (name, family) in enumerate(
        [("other", ("EFS", "GAN")), ("more", ("EFS", "diffusion")), ("more", ("EFS", "diffusion")),
         ("photo", ("none", "none"))])]  # fmt: skip
    answers = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.1, 0.1, 0.5, 0.3], [0.7, 0.0, 0.1, 0.2], [1.0, 0.0, 0.0, 0.0]])
    told = within_sources(Predictions(classes, tuple(rows), answers.double(), torch.zeros(4, 2)), {})
    assert told["families"] == [
        {"manipulation": "EFS", "classes": ["other", "more"], "num_images": 3, "accuracy": pytest.approx(2 / 3),
         "accuracy_interval": list(wilson_interval(2, 3))}
    ]  # fmt: skip


def test_a_model_that_knows_only_the_source_is_found_out():
    """It names what comes from a source by the source, and is right among all: between two classes it guesses."""
    rows = [("photo" if place % 2 else "edit", "a", [0.45, 0.45, 0.1], float(place % 3)) for place in range(40)]
    rows += [("other", "b", [0.1, 0.1, 0.8], 0.0)] * 40
    (pair,) = within_sources(predictions(*rows), {})["pairs"]
    assert pair["accuracy"] == 0.5


def test_new_sources_are_those_that_the_model_was_not_trained_on(model, manifest, tmp_path, monkeypatch):
    """The evaluated manifest may be another one than that of the training."""
    rows = [dataclasses.replace(row, source="web@1") for row in manifest.rows]
    told = evaluate(model, Manifest(manifest.root, rows), tmp_path, alterations=[], yardsticks=[])
    assert told.sources["new"] == []  # a model that does not say is taken for trained on the manifest's training split
    answers = CalibrationAnswers(
        versions=("as it is",), scores=torch.zeros(1, 2), probabilities=torch.zeros(1, 2), right=torch.ones(1, 2) > 0
    )
    collections = {"red": ("studio",), "green": ("web",), "photo": ()}
    decision = FittedDecision(score="max_logit", state={}, temperature=1.0, answers=answers, collections=collections)
    monkeypatch.setattr(model, "decision", decision, raising=False)
    told = evaluate(model, Manifest(manifest.root, rows), tmp_path, alterations=[], yardsticks=[])
    assert [(entry["generator"], entry["source"]) for entry in told.sources["new"]] == [("red", "web")]


def test_an_evaluation_tells_all(model, manifest, tmp_path):
    rows = [Row(*(getattr(row, name) for name in ("path", "generator", "manipulation", "architecture", "role", "split",
                                                  "group")), "set@1") for row in manifest.rows]  # fmt: skip
    told = evaluate(model, Manifest(manifest.root, rows), tmp_path / "out", alterations=["jpeg85"], yardsticks=[])
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["limits"]["unseen"] == 0.7
    assert [entry["version"] for entry in content["outcomes"]] == ["as they are", "jpeg85"]
    assert content["sources"]["pairs"][0]["classes"] == ["red", "green", "photo"]
    seen = told.predictions.seen.tolist()
    answers = Attributor(model)([manifest.image_path(row) for row in told.predictions.rows])
    right = [answer.generator == row.generator for answer, row in zip(answers, told.predictions.rows, strict=True)]
    assert told.outcomes[0]["right"] == sum(one and two for one, two in zip(right, seen, strict=True)) / sum(seen)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>By the model's own decision</h2>" in page
    assert '<th class="name">jpeg85</th>' in page
    own = predict(model, manifest).attributions()
    assert [answer.verdict for answer in own] == [answer.verdict for answer in answers]
