"""Training of a model that was handed over, with blocks that are not of the library."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch import nn

from bmrl.data.manifest import Manifest
from bmrl.errors import ConfigError, DataError, DTypeError, ModelFolderError
from bmrl.inference import Attributor
from bmrl.models import View, build_model, load_model, presets, save_model
from bmrl.training import BMRLTask, train
from tests.models.blocks import Cosine, Language, Parsing, Pooled

FAST = {"epochs": 2, "batch_size": 8, "precision": "32-true", "ema_decay": 0.5, "flip": True}
OPTIONS = {"recipe_changes": FAST, "device": "cpu", "progress": False}


def own_blocks():
    return {
        "appearance": Pooled(),
        "views": {"cosine": View(Cosine(64), Pooled(1))},
        "parsing": Parsing(),
        "language": Language(49408),
    }


def make(data, small, seed=0, blocks=own_blocks):
    """A model for the data, whose own blocks and others begin with values that depend on the seed."""
    torch.manual_seed(seed)
    config = presets.tiny(generators=Manifest.read(data).generators("seen"), **small)
    return build_model(config, **blocks())


def two_views():
    return {"appearance": Pooled(), "views": {"cosine": View(Cosine(64), Pooled(1))}}


def appearance():
    return {"appearance": Pooled()}


def test_every_block_learns_and_the_folder_wants_them_again(data, small, tmp_path):
    model = make(data, small)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    run = train(data, tmp_path / "run", model=model, **OPTIONS)
    assert run.parsing
    unused = {"language_encoder.words.weight"}  # most words occur in no prompt
    for name, parameter in model.named_parameters():
        assert name in unused or not torch.equal(parameter, before[name]), name
    assert not torch.equal(dict(model.named_parameters())["language_encoder.words.weight"], before[next(iter(unused))])
    with pytest.raises(ModelFolderError, match=r"^appearance, parsing, language, views.cosine: expected the modules"):
        load_model(run.folder)
    torch.manual_seed(5)
    loaded = load_model(run.folder, **own_blocks())
    images = [Image.effect_noise((64, 64), 80).convert("RGB") for _ in range(3)]
    for got, expected in zip(Attributor(loaded)(images), Attributor(model)(images), strict=True):
        assert got.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_folder_trains_further(data, small, tmp_path):
    small = small | {"language": None, "parsing": None}
    start = save_model(make(data, small, blocks=appearance), tmp_path / "start")
    with pytest.raises(ModelFolderError, match=r"^appearance: expected the modules"):
        train(data, tmp_path / "run", model=start, **OPTIONS)
    plain = save_model(make(data, small, blocks=dict), tmp_path / "plain")
    run = train(data, tmp_path / "run", model=plain, **OPTIONS)
    before, after = load_model(plain), load_model(run.folder)
    assert before.config == after.config
    seen = "visual_encoder.views.edge.encoder.backbone.layers.1.num_batches_tracked"
    assert (
        after.state_dict()[seen] > before.state_dict()[seen]
    )  # it was in training mode, regardless of what it was before


@pytest.mark.parametrize("seed", [3])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(data, small, tmp_path, monkeypatch, seed):
    small = small | {"language": None, "parsing": None}
    whole = make(data, small, blocks=two_views)
    train(data, tmp_path / "whole", model=whole, **OPTIONS)
    start = BMRLTask.on_train_batch_start

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        start(self, batch, batch_idx)

    monkeypatch.setattr(BMRLTask, "on_train_batch_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", model=make(data, small, blocks=two_views), **OPTIONS)
    monkeypatch.setattr(BMRLTask, "on_train_batch_start", start)
    again = {"resume": True, "device": "cpu", "progress": False}
    with pytest.raises(ConfigError, match=r"^model: expected the one that the run in .* began with, got none"):
        train(data, tmp_path / "run", **again)
    with pytest.raises(ConfigError, match=r"^model: expected one of the configuration in .*json, got another edge: "):
        train(data, tmp_path / "run", model=make(data, small | {"edge": None}, blocks=two_views), **again)
    other = make(data, small, blocks=lambda: two_views() | {"appearance": nn.Sequential(Pooled())})
    with pytest.raises(ConfigError, match=r"^model: .*, got another appearance.module: .*Sequential'"):
        train(data, tmp_path / "run", model=other, **again)
    resumed = make(data, small, seed=seed, blocks=two_views)
    train(data, tmp_path / "run", model=resumed, **again)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    finished = train(data, tmp_path / "run", model=make(data, small, blocks=two_views), **again)
    assert finished.epochs == 2


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"preset": "tiny"}, ConfigError, r"^preset: expected none together with model, got 'tiny'"),
        ({"model_changes": {}}, ConfigError, r"^model_changes: expected none together with model, got dict"),
        ({"model": nn.Linear(1, 1)}, DTypeError, r"^model: expected a BMRL or its folder, got Linear"),
        ({"recipe_changes": {"edge": None}}, ConfigError, r"edge: .* got one that belongs in model_changes"),
        ({"recipe_changes": {"shift": 64}}, ConfigError, r"shift: expected less than image_size 64, got 64"),
    ],
)
def test_what_does_not_fit_is_named_before_a_folder_is_made(data, small, tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message):
        train(data, tmp_path / "run", **({"model": make(data, small, blocks=appearance)} | changes))
    assert not (tmp_path / "run").exists()


def test_generators_and_maps_must_be_there(data, data_without_parsing, small, tmp_path):
    other = build_model(presets.tiny(num_generators=3, **small))
    with pytest.raises(DataError, match=r"expected the model's generators generator_0, .*, got camera, noise, stripes"):
        train(data, tmp_path / "run", model=other)
    with pytest.raises(DataError, match=r"expected parsing maps for the parsing encoder, got none"):
        train(data_without_parsing, tmp_path / "run", model=make(data, small, blocks=appearance))
    assert not (tmp_path / "run").exists()


def test_a_model_that_could_not_be_saved_is_not_trained(data, small, tmp_path):
    model = make(data, small, blocks=appearance)
    model.visual_encoder.views["edge"].encoder = Pooled(1)
    with pytest.raises(ModelFolderError, match=r"views.edge.encoder: expected .*ConvTransformer, .* got .*Pooled"):
        train(data, tmp_path / "run", model=model)


def test_settings_say_that_a_model_was_given(data, small, tmp_path):
    small = small | {"language": None, "parsing": None}
    train(data, tmp_path / "run", model=make(data, small, blocks=appearance), **OPTIONS)
    settings = json.loads((tmp_path / "run" / "training.json").read_text())
    assert settings["model_given"] is True
    assert settings["model"]["appearance"]["kind"] == "custom"
