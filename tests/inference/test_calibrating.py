"""Fitting a decision: what it is fitted to, what it keeps, and what follows for answers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from PIL import Image

from bmrl.data.alterations import ALTERATIONS, read_versions
from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DataError, DTypeError, RangeError
from bmrl.inference import Attributor, Decider, attribute, calibrate, calibrating, decider_of, limits_of
from bmrl.inference.scores import SCORES
from bmrl.models import build_model, load_model, save_model
from bmrl.training import train

ASKED = {"accept": 0.9, "typical": 0.7, "max_error": 0.1}


def answers(model, manifest, split, alteration=None):
    rows = manifest.select(split=split, role="seen")
    images = torch.cat([read_versions(manifest.image_path(row), 32, [alteration]) for row in rows])
    names = [generator.name for generator in model.config.generators]
    with torch.no_grad():
        return model(images), torch.tensor([names.index(row.generator) for row in rows])


@pytest.mark.parametrize("score", SCORES)
def test_it_keeps_what_the_model_answers(model, faces, score):
    fitted = calibrate(model, faces, score=score, alterations=["half", "jpeg75"], **ASKED)
    assert model.decision is fitted
    assert (model.config.decision.score, model.config.decision.max_error) == (score, 0.1)
    assert fitted.answers.versions == ("as it is", "half", "jpeg75")
    decider = decider_of(model)
    order = [generator.name for generator in model.config.generators]
    for place, name in enumerate((None, "half", "jpeg75")):
        output, labels = answers(model, faces, "val", name and ALTERATIONS[name])
        by_class = torch.cat([(labels == label).nonzero()[:, 0] for label in range(len(order))])
        probabilities, scores = decider(output.logits[by_class], output.embedding[by_class])
        assert torch.allclose(fitted.answers.scores[place], scores, atol=1e-5, rtol=1e-5)
        assert torch.allclose(fitted.answers.probabilities[place], probabilities.amax(1), atol=1e-6)
        assert torch.equal(fitted.answers.right[place], probabilities.argmax(1) == labels[by_class])


def test_a_score_is_fitted_to_training_images_in_all_versions_in_turn(model, faces):
    fitted = calibrate(model, faces, score="center_distance", alterations=["half", "crop"], **ASKED)
    versions = [answers(model, faces, "train", name and ALTERATIONS[name]) for name in (None, "half", "crop")]
    labels = versions[0][1]
    order = torch.cat([(labels == label).nonzero()[:, 0] for label in range(3)])  # as calibrate reads them
    turn = torch.arange(len(order)) % 3
    mixed = torch.stack([output.embedding[order] for output, _ in versions])[turn, torch.arange(len(order))]
    assert not torch.allclose(mixed, versions[0][0].embedding[order], atol=1e-4)
    centers = torch.stack([mixed[labels[order] == label].mean(0) for label in range(3)])
    torch.testing.assert_close(fitted.state["centers"], centers, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fitted.references.embeddings, mixed, rtol=0, atol=1e-6)


def test_the_references_are_drawn_from_all_versions(model, faces, monkeypatch):
    """Every second picture of two versions in turn would be of one version."""
    everything = calibrate(model, faces, alterations=["half"], **ASKED).references
    monkeypatch.setattr(calibrating, "MOST_REFERENCES", 10)
    monkeypatch.setattr(calibrating, "MOST_HELD_OUT", 30)
    kept = calibrate(model, faces, alterations=["half"], **ASKED).references
    assert kept.labels.tolist() == [label for label in range(3) for _ in range(10)]
    place = torch.cdist(kept.embeddings, everything.embeddings).argmin(dim=1)
    assert torch.equal(everything.embeddings[place], kept.embeddings)
    assert (place % 2).double().mean() == pytest.approx(0.5, abs=0.25)
    assert kept.held_out.shape[:2] == (2, 30)


def test_it_keeps_where_the_training_images_come_from(model, faces, monkeypatch):
    def moved(split, source):
        return [dataclasses.replace(row, source=source(row)) for row in faces.select(split=split, role="seen")]

    rows = [*moved("train", lambda row: f"{row.generator}-set@1/{row.path}"), *moved("val", lambda row: "elsewhere")]
    fitted = calibrate(model, Manifest(faces.root, tuple(rows)), **ASKED)
    classes = [generator.name for generator in model.config.generators]
    assert fitted.collections == {name: (f"{name}-set",) for name in classes}
    monkeypatch.setattr(calibrating, "MOST_COLLECTIONS", 2)
    rows = [*moved("train", lambda row: row.path), *moved("val", lambda row: "elsewhere")]  # a collection for each file
    assert calibrate(model, Manifest(faces.root, tuple(rows)), **ASKED).collections == dict.fromkeys(classes, ())
    rows = [row for split in ("train", "val") for row in moved(split, lambda row: "")]
    assert calibrate(model, Manifest(faces.root, tuple(rows)), **ASKED).collections == dict.fromkeys(classes, ())


def test_the_temperature_makes_the_probabilities_those_of_the_validation_images(model, faces):
    model.sharpness.data.fill_(40.0)  # far too sure
    fitted = calibrate(model, faces, score="energy", alterations=[], **ASKED)
    output, labels = answers(model, faces, "val")

    def loss(temperature):
        return float(torch.nn.functional.cross_entropy(output.logits / temperature, labels))

    grid = [math.exp(step / 50) for step in range(-150, 151)]
    assert fitted.temperature == pytest.approx(min(grid, key=loss), rel=0.03)
    assert fitted.temperature > 1.5


def test_answers_follow_the_limits(model, faces):
    calibrate(model, faces, score="mahalanobis", accept=0.7, typical=0.5, max_error=0.1)
    limits = limits_of(model)
    assert (limits.accept, limits.typical, limits.max_error) == (0.7, 0.5, 0.1)
    far, near = Image.new("RGB", (32, 32), (0, 0, 0)), Image.new("RGB", (32, 32), (60, 200, 60))
    unseen, seen = Attributor(model)([far, near])
    assert (unseen.verdict, unseen.generator, unseen.seen) == ("unseen", None, False)
    assert unseen.score < limits.unseen == unseen.threshold
    assert (seen.verdict, seen.generator, seen.seen) == ("seen", "green", True)
    assert seen.score >= limits.seen
    assert seen.probability >= limits.probability
    assert "which at least 70 % of seen pictures reach" in unseen.reason
    assert "at which at most 10 % of all seen pictures get a wrong name" in seen.reason
    by_probability = attribute(model, [far], threshold=0.1)[0]  # the paper's rule
    assert (by_probability.verdict, by_probability.score) == ("seen", by_probability.probability)


def test_less_error_names_fewer(model, faces):
    model.sharpness.data.fill_(3.0)
    calibrate(model, faces, score="max_probability", **ASKED)
    images = [faces.image_path(row) for row in faces.select(split="val")]

    def named(max_error):
        return sum(answer.seen for answer in Attributor(model, max_error=max_error)(images))

    counts = [named(error) for error in (0.02, 0.1, 0.4, 0.9)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    with pytest.raises(ConfigError, match=r"max_error: expected 99 calibration pictures or more for 0.01, got 60"):
        Attributor(model, max_error=0.01)


def test_a_folder_is_written_again(small_config, faces, tmp_path):
    torch.manual_seed(0)
    save_model(build_model(small_config()), tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    fitted = calibrate(tmp_path / "model", faces, score="combined", **ASKED)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    loaded = load_model(tmp_path / "model")
    assert loaded.decision.answers.scores.equal(fitted.answers.scores)
    output, _ = answers(loaded, faces, "val")
    for own, other in zip(
        decider_of(loaded)(output.logits, output.embedding),
        Decider.of(fitted)(output.logits, output.embedding),
        strict=True,
    ):
        assert torch.equal(own, other)
    images = [faces.image_path(row) for row in faces.select(split="val")]
    assert {answer.verdict for answer in attribute(tmp_path / "model", images)} <= {"seen", "unseen", "uncertain"}


def test_too_few_validation_images_change_nothing(model, faces):
    with pytest.raises(ConfigError, match=r"max_error: expected 99 calibration pictures or more for 0.01, got 60"):
        calibrate(model, faces, max_error=0.01)
    assert model.config.decision.score is None


def test_what_is_missing_is_named(model, faces):
    rows = [row for row in faces.rows if row.split != "val"]
    with pytest.raises(DataError, match=r"data: expected val images of the model's classes in .*, got none"):
        calibrate(model, Manifest(faces.root, rows))
    rows = [row for row in faces.rows if row.generator != "red" or row.split != "train"]
    with pytest.raises(DataError, match=r"data: expected train images of red in .*, got none"):
        calibrate(model, Manifest(faces.root, rows))
    rows = [row for row in faces.rows if row.split == "train"]
    rows += [row for row in faces.rows if row.split == "val"][:20]
    fitted = calibrate(model, Manifest(faces.root, rows), alterations=[], accept=0.9, typical=0.7, max_error=0.1)
    assert fitted.answers.num_pictures == 20  # a class without validation images is no error


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"score": "entropy"}, RangeError, "score: expected 'max_probability' or"),
        ({"alterations": "jpeg75"}, DTypeError, "alterations: expected a list of names, got 'jpeg75'"),
        ({"alterations": ["jpeg"]}, RangeError, "alterations: expected 'jpeg75' or"),
        ({"max_error": 0}, ConfigError, "decision.max_error: expected a finite number > 0 and < 1, got 0"),
        ({"typical": 0.99}, ConfigError, "decision.typical: expected at most accept 0.95, got 0.99"),
        ({"centers": torch.zeros(2, 3)}, RangeError, "centers: expected generators = 3, got 2"),
    ],
)
def test_arguments(model, faces, options, error, message):
    with pytest.raises((error, ValueError), match=message):
        calibrate(model, faces, **options)
    assert not hasattr(model, "decision") or model.decision is None


def test_an_unfitted_score_is_never_guessed(model):
    model.config = model.config.with_changes({"decision.score": "energy"})
    model.decision = None
    message = "decision.score: expected a model with 'energy' fitted, got none; fit it with bmrl calibrate"
    with pytest.raises(ConfigError, match=message):
        Attributor(model)
    Attributor(model, threshold=0.5)


def test_a_training_fits_the_decision_that_its_configuration_asks_for(data, small, tmp_path):
    asked = {"decision": {"score": "center_distance", "accept": 0.9, "typical": 0.7, "max_error": 0.4}}
    off = {"parsing": None, "language": None, "edge": None, "noise": None}
    train(data, tmp_path / "run", model_changes=small | asked | off, recipe_changes={"epochs": 1}, device="cpu")
    model = load_model(tmp_path / "run")
    centers = load_centers(tmp_path / "run")
    assert torch.equal(model.decision.state["centers"], centers)
    assert model.decision.answers.num_pictures == 12


def load_centers(folder):
    from safetensors.torch import load_file

    return load_file(folder / "objective.safetensors")["dfacc.centers"]


def test_a_training_asks_for_validation_images_before_it_begins(data, small, tmp_path):
    with pytest.raises(ConfigError, match=r"accept: expected 19 calibration pictures or more for 0.95, got 12"):
        train(data, tmp_path / "run", model_changes=small | {"decision.score": "energy"}, device="cpu")
    assert not (tmp_path / "run" / "model.safetensors").exists()
