"""Enrolling a generator: what is learned of it, what stays, and what the new model is from then on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize

import bmrl
from bmrl.data.alterations import ALTERATIONS, read_versions
from bmrl.errors import ConfigError, DataError, RangeError
from bmrl.export import export_model, load_artifact
from bmrl.inference import Attributor, calibrate, decider_of, enroll, limits_of
from bmrl.inference.enrolling import PENALTY
from bmrl.inference.scores import SCORES
from bmrl.models import build_model, load_model, save_model

ASKED = {"accept": 0.9, "typical": 0.7, "max_error": 0.3}


@pytest.fixture
def model(small_config, faces):
    """A real one, whose embeddings tell colors and stripes apart without training; its head is fitted to the colors."""
    torch.manual_seed(0)
    model = build_model(small_config(edge=None, noise=None)).eval()
    names = [generator.name for generator in model.config.generators]
    rows = faces.select(split="train", role="seen")
    labels = torch.tensor([names.index(row.generator) for row in rows])
    with torch.no_grad():
        features = model.head[:-1](model(images_of(faces.image_path(row) for row in rows)).embedding)
    optimizer = torch.optim.LBFGS(model.head[-1].parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model.head[-1](features), labels)
        value = value + 1e-3 * model.head[-1].weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return model


@pytest.fixture
def calibrated(model, faces):
    calibrate(model, faces, alterations=["half"], **ASKED)
    return model


@pytest.fixture
def pictures(tmp_path):
    """20 noisy pictures in stripes, which no class has, and which are there at half the size too."""
    rng = np.random.default_rng(1)
    paths = []
    for number in range(20):
        stripes = 100 * (np.arange(36) // 4 % 2)[None, :, None] + rng.normal(80, 20, (36, 36, 3))
        paths.append(tmp_path / f"stripes_{number}.png")
        Image.fromarray(stripes.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def images_of(paths):
    return torch.stack([bmrl.images.read_image(path, 32) for path in paths])


def test_the_new_class_is_named_and_the_others_keep_their_logits(calibrated, faces, pictures):
    before = {name: value.clone() for name, value in calibrated.state_dict().items()}
    enrolled, found = enroll(calibrated, "stripes", pictures, manipulation="FS", architecture="diffusion")
    torch.testing.assert_close(dict(calibrated.state_dict()), before, rtol=0, atol=0)
    assert len(calibrated.config.generators) == 3
    assert [generator.name for generator in enrolled.config.generators] == ["red", "green", "photo", "stripes"]
    new_class = enrolled.config.generators[-1]
    assert (new_class.manipulation, new_class.architecture) == ("FS", "diffusion")
    images = torch.cat((images_of(pictures), images_of(faces.image_path(row) for row in faces.select(split="val"))))
    with torch.no_grad():
        old, new = calibrated(images), enrolled(images)
    torch.testing.assert_close(new.logits[:, :3], old.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(new.embedding, old.embedding, rtol=0, atol=0)
    assert (new.logits[:20].argmax(1) == 3).all()
    assert (new.logits[20:].argmax(1) == 3).float().mean() < 0.1
    assert found.pictures == 20
    assert found.named + found.named_otherwise + found.uncertain + found.unseen == pytest.approx(1)
    assert found.named_otherwise < 0.2
    assert found.taken < 0.1


def test_the_row_is_a_penalized_logistic_regression(calibrated, pictures):
    enrolled, _ = enroll(calibrated, "stripes", pictures[:7])
    known = calibrated.decision.references
    with torch.no_grad():
        new = calibrated(torch.cat([read_versions(path, 32, [None, ALTERATIONS["half"]]) for path in pictures[:7]]))
        new = new.embedding
        features = calibrated.head[:-1](torch.cat((new, known.embeddings))).double().numpy()
        old = calibrated.head(torch.cat((new, known.embeddings))).double()
    offsets = old.logsumexp(1).numpy()
    sign = np.where(np.arange(len(features)) < 14, 1, -1)
    counts = np.bincount(known.labels)
    weights = np.concatenate((np.full(14, 1 / 14), 1 / counts[known.labels.numpy()])) / 4

    length = calibrated.head[-1].weight.square().sum(1).mean().item()

    def loss(row):
        odds = features @ row[:-1] + row[-1] - offsets
        return (weights * np.logaddexp(0, -sign * odds)).sum() + PENALTY * (row[:-1] ** 2).sum() / length

    expected = minimize(loss, np.zeros(features.shape[1] + 1), method="L-BFGS-B", options={"maxiter": 5000}).x
    layer = enrolled.head[-1]
    np.testing.assert_allclose(layer.weight[3].detach().numpy(), expected[:-1], atol=2e-3)
    assert loss(np.append(layer.weight[3].detach().numpy(), layer.bias[3].item())) <= loss(expected) + 1e-6


@pytest.mark.parametrize("score", SCORES)
def test_the_decision_is_about_all_classes(model, faces, pictures, score):
    fitted = calibrate(model, faces, score=score, alterations=["half"], **ASKED)
    enrolled, _ = enroll(model, "stripes", pictures)
    decision = enrolled.decision
    assert decision.answers.num_pictures == fitted.answers.num_pictures + 20
    assert decision.temperature == fitted.temperature
    assert decision.references.num_enrolled == 20
    assert decision.references.labels.max() == 3
    images = images_of(faces.image_path(row) for row in faces.select(split="val"))
    with torch.no_grad():
        output = enrolled(images)
        probabilities, scores = decider_of(enrolled)(output.logits, output.embedding)
    count = fitted.answers.num_pictures
    by_score = decision.answers.scores[0, :count].sort().values
    torch.testing.assert_close(by_score, scores.sort().values, rtol=1e-4, atol=1e-4)
    best = decision.answers.probabilities[0, :count].sort().values
    torch.testing.assert_close(best, probabilities.amax(1).sort().values, rtol=1e-4, atol=1e-5)
    if score == "combined":
        weights = [decider_of(each).score.weights() for each in (model, enrolled)]
        assert weights[0] == weights[1]


def test_it_is_saved_exported_and_attributes_like_others(calibrated, pictures, tmp_path):
    save_model(calibrated, tmp_path / "model")
    enrolled, _ = enroll(tmp_path / "model", "stripes", pictures)
    save_model(enrolled, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert limits_of(loaded) == limits_of(enrolled)
    assert loaded.decision.references.num_enrolled == 20
    local = Attributor(loaded)(pictures)
    assert {answer.verdict for answer in local} <= {"seen", "uncertain", "unseen"}
    assert all("stripes" in answer.probabilities for answer in local)
    named = [answer.generator for answer in local if answer.verdict == "seen"]
    assert named.count("stripes") >= 0.9 * len(named) > 0
    path = export_model(loaded, tmp_path / "model.pt").path
    probabilities, _, score = load_artifact(path).run(images_of(pictures))
    for answer, row, value in zip(local, probabilities, score[:, 0], strict=True):
        assert row[3].item() == pytest.approx(answer.probabilities["stripes"], abs=1e-4)
        assert value.item() == pytest.approx(answer.score, abs=1e-2)


def test_a_second_one_keeps_what_was_found_about_the_first(calibrated, pictures):
    first, _ = enroll(calibrated, "stripes", pictures[:10])
    second, found = enroll(first, "more stripes", pictures[10:])
    assert second.config.num_generators == 5
    assert second.decision.references.num_enrolled == 20
    kept = first.decision.answers.scores[:, -10:]
    torch.testing.assert_close(second.decision.answers.scores[:, -20:-10], kept, rtol=0, atol=0)
    assert found.pictures == 10


def test_pictures_are_answered_by_what_was_learned_from_others(calibrated, pictures):
    """A picture that is like no other one gets no name from itself."""
    strange = pictures[0].with_name("strange.png")
    Image.new("RGB", (36, 36), (255, 255, 0)).save(strange)
    enrolled, _ = enroll(calibrated, "stripes", [strange, *pictures[:9]])
    alone, _ = enroll(calibrated, "stripes", pictures[:9])
    with torch.no_grad():
        own = [each(images_of([strange])).probabilities[0, 3].item() for each in (enrolled, alone)]
    assert own[1] < own[0]
    answered = enrolled.decision.answers.probabilities[0, -10].item()
    with torch.no_grad():
        output = enrolled(images_of([strange]))
        in_sample = decider_of(enrolled)(output.logits, output.embedding)[0].amax().item()
    assert answered != pytest.approx(in_sample, abs=1e-6)


def test_what_cannot_be_read_is_left_out_and_said(calibrated, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    enrolled, found = enroll(calibrated, "stripes", [*pictures[:5], tmp_path / "broken.png", tmp_path / "none.png"])
    assert found.pictures == 5
    assert [name for name, _ in found.skipped] == [str(tmp_path / "broken.png"), str(tmp_path / "none.png")]
    assert enrolled.config.num_generators == 4
    with pytest.raises(DataError, match=r"^pictures: expected at least 5 that can be read, got 4; first: .*broken.png"):
        enroll(calibrated, "stripes", [*pictures[:4], tmp_path / "broken.png"])


def test_refusals(calibrated, pictures, model, faces):
    with pytest.raises(DataError, match=r"^pictures: expected at least 5, got 4"):
        enroll(calibrated, "stripes", pictures[:4])
    with pytest.raises(ConfigError, match=r"^name: expected none of the model's classes, got 'red'"):
        enroll(calibrated, "red", pictures)
    with pytest.raises(RangeError, match=r"^manipulation: expected"):
        enroll(calibrated, "stripes", pictures, manipulation="XX")
    plain = build_model(calibrated.config.with_changes({"decision.score": None}))
    with pytest.raises(ConfigError, match=r"^model: expected one whose decision is fitted, got one without"):
        enroll(plain, "stripes", pictures)
    old = dataclasses.replace(calibrated.decision, references=None)
    calibrated.decision = old
    with pytest.raises(ConfigError, match=r"calibrated by an earlier version"):
        enroll(calibrated, "stripes", pictures)


def test_refuses_a_head_of_ones_own(model, faces, pictures):
    own = build_model(model.config, head=torch.nn.Linear(model.config.embed_dim, 3))
    calibrate(own, faces, alterations=[], **ASKED)
    with pytest.raises(ConfigError, match=r"^model: expected one with the head of kind 'linear', got 'custom'"):
        enroll(own, "stripes", pictures)
