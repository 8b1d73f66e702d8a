"""A metric is one entry in one table: everything that shows metrics walks it."""

from __future__ import annotations

import json

import pytest
import torch

from bmrl.data.row import Row
from bmrl.evaluation import Predictions, evaluate, format_comparison, format_metrics, measures, summarize
from bmrl.evaluation.comparison import Comparison, MethodResult
from bmrl.evaluation.measures import MEASURES, Column, Measure, ThresholdMeasure


def paths_in(data, path=()):
    """Return the path to each number of plain data, without the places in lists."""
    if isinstance(data, dict):
        return {found for key, value in data.items() for found in paths_in(value, (*path, key))}
    if isinstance(data, list):
        return {found for value in data for found in paths_in(value, path)}
    return {path}


@pytest.fixture
def added(monkeypatch):
    """Two metrics more, in their one place."""
    confidence = Measure(
        name="mean_confidence",
        title="Mean confidence",
        explanation="How sure the model is of <seen> images.",
        over="seen",
        compute=lambda predictions: float(predictions.decisions.scores[predictions.seen].mean()),
        higher_is_better=False,
        format=".4f",
        per_generator=Column("confidence", "confidence"),
    )
    accepted = ThresholdMeasure(
        name="unseen_acceptance",
        title="Unseen accepted",
        explanation="Share of unseen images that are taken for seen ones.",
        over="unseen",
        compute=lambda predictions, threshold: float(
            predictions.decisions.seen(threshold)[~predictions.seen].double().mean()
        ),
        has_interval=True,
        per_generator=Column("acceptance", "taken for seen"),
    )
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, confidence, accepted))


@pytest.mark.usefixtures("added")
def test_a_metric_of_the_table_is_everywhere(model, manifest, tmp_path, expected_probabilities):
    scores = {path: max(row) for path, row in expected_probabilities.items()}
    seen = [score for path, score in scores.items() if path.split("/")[0] in ("red", "green", "photo")]
    red = [score for path, score in scores.items() if path.startswith("red/")]
    evaluation = evaluate(model, manifest, tmp_path / "out")

    assert evaluation.metrics["mean_confidence"] == pytest.approx(sum(seen) / 6, abs=1e-6)
    assert evaluation.metrics["unseen_acceptance@0.7"] == pytest.approx(1 / 3)
    assert evaluation.yardsticks["color_spectrum"].metrics["mean_confidence"] > 0

    content = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert content["seen"]["mean_confidence"] == pytest.approx(sum(seen) / 6, abs=1e-6)
    assert content["seen"]["per_generator"][0]["confidence"] == pytest.approx(sum(red) / 3, abs=1e-6)
    assert content["thresholds"][0]["unseen_acceptance"] == pytest.approx(1 / 3)
    low, high = content["thresholds"][0]["unseen_acceptance_interval"]
    assert 0 < low < 1 / 3 < high < 1
    gray, snapshot = content["unseen"]["per_generator"]
    assert (gray["acceptance"], snapshot["acceptance"]) == ([0.0, 0.0], [1.0, 1.0])

    lines = format_metrics({"mine": evaluation}).splitlines()
    assert f"Mean confidence {sum(seen) / 6:.4f}" in [" ".join(line.split()) for line in lines]
    assert "Unseen accepted at 0.9 33.3%" in [" ".join(line.split()) for line in lines]

    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Mean confidence ↓" in report
    assert "How sure the model is of &lt;seen&gt; images." in report
    assert "Unseen accepted at 0.7 ↑" in report
    assert f">{sum(red) / 3:.4f}<" in report
    assert "taken for seen at 0.9" in report

    run = evaluation.metrics
    comparison = Comparison(
        folder=tmp_path,
        data=tmp_path,
        preset="tiny",
        folds=2,
        seeds=(0,),
        methods={"bmrl": MethodResult(epochs=1, curve=[1.0], runs=[run])},
    )
    assert any(line.startswith("Mean confidence ") for line in format_comparison(comparison).splitlines())
    assert ("methods", "bmrl", "runs", "mean_confidence") in paths_in(comparison.to_dict())


def test_the_table_is_sound():
    assert len({entry.name for entry in MEASURES}) == len(MEASURES)
    assert len({entry.title for entry in MEASURES}) == len(MEASURES)
    assert {entry.name for entry in MEASURES if not entry.higher_is_better} == {"fpr95"}
    for entry in MEASURES:
        assert entry.over in ("seen", "unseen")
        assert entry.explanation.endswith(".")


def test_every_metric_but_auprs_is_at_its_best_for_perfect_answers(classes):
    """Perfect: seen images are named right with certainty, unseen ones get the same probability for each class."""
    rows = [Row(f"{c.name}.png", c.name, c.manipulation, c.architecture, "seen", "test", c.name) for c in classes]
    rows.append(Row("odd.png", "odd", "AM", "GAN", "unseen", "test", "odd"))
    probabilities = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)])
    found = summarize(Predictions(classes, tuple(rows), probabilities, torch.zeros(4, 2)), [0.5]).metrics
    best = {entry.name: float(entry.higher_is_better) for entry in MEASURES}
    assert found == {name: best[name.partition("@")[0]] for name in found}
