"""A fitted decision on disk: with its weights or not at all, whole or refused."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import shutil

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.errors import ConfigError, ModelFolderError
from bmrl.inference import Attributor, decider_of, limits_of
from bmrl.inference.scores import SCORES, FittingData
from bmrl.models import CalibrationAnswers, FittedDecision, build_model, load_model, presets, save_model, serialization

SIZES = {"image_size": 32, "embed_dim": 16, "*.channels": (4, 8), "*.convs_per_stage": (1, 1), "*.num_blocks": 1,
         "*.num_heads": 2, "*.mlp_dim": 16, "*.token_patch": 1, "parsing": None, "language": None, "edge": None,
         "noise": None, "decision.accept": 0.9, "decision.typical": 0.7, "decision.max_error": 0.2}  # fmt: skip
FILES = ("config.json", "model.safetensors", "decision.safetensors")


def made(score="combined", seed=0):
    torch.manual_seed(seed)
    model = build_model(presets.paper(num_generators=3, **SIZES, **{"decision.score": score})).eval()
    if score is None:
        return model
    logits, embeddings = 3 * torch.randn(40, 3), torch.randn(40, 16)
    fitted = SCORES[score].fit(FittingData(logits=logits, embeddings=embeddings, labels=torch.arange(40) % 3))
    model.decision = FittedDecision(
        score=score,
        state=fitted.state_dict(),
        temperature=1.25,
        answers=CalibrationAnswers(
            versions=("as it is", "half"),
            scores=torch.randn(2, 40),
            probabilities=torch.rand(2, 40),
            right=torch.rand(2, 40) > 0.1,
        ),
        collections={"generator_0": ("a", "b"), "generator_1": ()},
    )
    return model


def scored(model):
    rng = torch.Generator().manual_seed(5)
    return decider_of(model)(torch.randn(6, 3, generator=rng), torch.randn(6, 16, generator=rng))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(scored(one), scored(other), strict=True))


@pytest.mark.parametrize("score", SCORES)
def test_comes_back(score, tmp_path):
    model = made(score)
    loaded = load_model(save_model(model, tmp_path))
    assert same(loaded, model)
    assert limits_of(loaded) == limits_of(model)
    assert loaded.decision.answers.versions == ("as it is", "half")
    assert loaded.decision.collections == {"generator_0": ("a", "b"), "generator_1": ()}
    save_model(loaded, tmp_path / "again")
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_model_without_one_removes_that_of_another(tmp_path):
    save_model(made(), tmp_path)
    save_model(made(None), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert load_model(tmp_path).decision is None


def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    """Every rename and every removal is one step; the process ends before it."""
    old, new = made("energy", 1), made("mahalanobis", 2)
    calls = []

    class Killed(BaseException):
        pass

    def counted(function):
        def call(*arguments, **options):
            calls.append(1)
            if len(calls) == stop:
                raise Killed
            return function(*arguments, **options)

        return call

    for name in ("replace", "rename", "unlink"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for first, second in ((old, new), (new, old), (made(None, 3), new), (new, made(None, 3))):
        stop = 0
        for step in range(1, 30):
            folder = tmp_path / f"{id(first)}_{step}"
            stop = 0
            save_model(first, folder)
            calls.clear()
            stop = step
            try:
                save_model(second, folder)
                ended = True
            except Killed:
                ended = False
            stop = 0
            found = load_model(folder)
            (whole,) = [each for each in (first, second) if found.config == each.config]
            assert same(found, whole)
            assert torch.equal(found.head[-1].weight, whole.head[-1].weight)
            assert whole is second or not ended
            if ended:
                break
        assert ended


def test_weights_of_another_model_are_noticed(tmp_path):
    save_model(made(seed=1), tmp_path / "one")
    save_model(made(seed=2), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "decision.safetensors", tmp_path / "one")
    with pytest.raises(
        ModelFolderError, match=r"decision\.safetensors: expected a decision that was fitted with .*, got one"
    ):
        load_model(tmp_path / "one")


def edit(folder, **decision):
    content = json.loads((folder / "config.json").read_text())
    content["model"]["decision"] |= decision
    (folder / "config.json").write_text(json.dumps(content))
    return load_model(folder)


def test_what_is_asked_may_be_edited(tmp_path):
    save_model(made(), tmp_path)
    assert limits_of(edit(tmp_path, max_error=0.5)).max_error == 0.5
    assert limits_of(edit(tmp_path, score=None)).score == "max_probability"
    Attributor(edit(tmp_path, score=None))
    other = edit(tmp_path, score="energy")
    with pytest.raises(ConfigError, match=r"decision.score: expected a model with 'energy' fitted, got 'combined'"):
        Attributor(other)
    with pytest.raises(ConfigError, match=r"decision.score: expected a model with 'no such' fitted"):
        Attributor(edit(tmp_path, score="no such"))


def test_a_folder_of_before_has_the_papers_rule(tmp_path):
    save_model(made(None), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["decision"] = {"thresholds": [0.6]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = load_model(tmp_path)
    assert (model.decision, limits_of(model).unseen) == (None, 0.6)


@given(st.data())
@settings(max_examples=30)
def test_any_damage_is_one_clear_error_or_harmless(data):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        save_model(made("mahalanobis"), folder)
        path = Path(folder, "decision.safetensors")
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            del content[place:]
        else:
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        with contextlib.suppress(ModelFolderError, ConfigError):
            limits_of(load_model(folder))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("state.whitening", torch.full((16, 16), torch.nan)),
        ("answers.scores", torch.zeros(2, 39)),
        ("answers.right", torch.zeros(2, 40)),
        ("answers.more", torch.zeros(1)),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, name, tensor):
    save_model(made("mahalanobis"), tmp_path)
    path = tmp_path / "decision.safetensors"
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path) | {name: tensor}
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    with pytest.raises(ModelFolderError, match=r"decision.safetensors: expected a fitted decision of bmrl"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("score", "name", "tensor"),
    [
        ("mahalanobis", "means", torch.zeros(3, 8)),
        ("mahalanobis", "means", torch.zeros(0, 16)),
        ("mahalanobis", "whitening", torch.zeros(16, 8)),
        ("neighbors", "neighbors", torch.tensor(0.0)),
        ("neighbors", "neighbors", torch.tensor(1e9)),
        ("neighbors", "neighbors", torch.zeros(2)),
        ("center_distance", "centers", torch.full((3, 16), 3e38)),
        ("combined", "deviation", torch.tensor(0.0)),
    ],
)
def test_a_state_that_does_not_fit_the_model_is_noticed_before_the_first_image(tmp_path, score, name, tensor):
    model = made(score)
    state = {key: tensor if key.rpartition(".")[2] == name else value for key, value in model.decision.state.items()}
    model.decision = dataclasses.replace(model.decision, state=state)
    loaded = load_model(save_model(model, tmp_path))
    for use in (Attributor, limits_of, decider_of):
        with pytest.raises(ConfigError, match=r"^decision: expected what "):
            use(loaded)


def test_a_copy_has_its_own(tmp_path):
    model = made()
    copied = copy.deepcopy(model)
    assert same(copied, model)
    assert same(copied.to(torch.bfloat16), model)
    assert serialization.DECISION == "decision.safetensors"
