"""The encoder around pretrained networks: what it computes, and what is trained."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from bmrl.encoders import PretrainedEncoder
from bmrl.errors import ConfigError, DTypeError, MissingExtraError, RangeError, ShapeError

timm = pytest.importorskip("timm")

NETWORKS = ["test_efficientnet", "test_resnet", "test_mambaout", "test_vit", "test_vit_relpos", "tf_efficientnet_lite0"]
"""With batch norm, with maps that end in channels, with one size, and with constants of their own."""


def full_model(name, folder):
    """A whole model of timm with random values, and the file that holds them."""
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after a training
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    path = folder / f"{name}.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def normalized(images, name):
    """What timm's own configuration of the weights asks for, channel by channel."""
    config = timm.get_pretrained_cfg(name)
    numbers = images.double().numpy().copy()
    for channel in range(3):
        numbers[:, channel] = (numbers[:, channel] - config.mean[channel]) / config.std[channel]
    if config.fixed_input_size:
        raise AssertionError("resample first")
    return torch.from_numpy(numbers).float()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pooling", ["mean_std", "mean", "output", "tokens"])
def test_any_network_gives_embeddings(name, pooling):
    encoder = PretrainedEncoder(name, 64, embed_dim=24, weights=None, pooling=pooling, num_blocks=1, mlp_dim=32).eval()
    with torch.inference_mode():
        embeddings = encoder(torch.rand(3, 3, 64, 64))
    assert embeddings.shape == (3, 24)
    assert embeddings.isfinite().all()
    assert encoder(torch.rand(0, 3, 64, 64)).shape == (0, 24)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_mambaout", "tf_efficientnet_lite0"])
def test_features_are_those_of_the_whole_model_on_normalized_images(name, tmp_path):
    model, path = full_model(name, tmp_path)
    encoder = PretrainedEncoder(name, 64, embed_dim=8, weights=path, stages=(1, 3)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model.forward_intermediates(normalized(images, name), intermediates_only=True, indices=[1, 3])
        for feature, wanted in zip(encoder.tower(images), expected, strict=True):
            torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [96, 160, 224])
def test_images_are_resampled_for_a_network_of_one_size(size, tmp_path):
    model, path = full_model("test_vit", tmp_path)
    encoder = PretrainedEncoder("test_vit", size, embed_dim=8, weights=path, pooling="tokens", stages=(0, 2)).eval()
    images = torch.rand(2, 3, size, size)
    resampled = F.interpolate(images, (160, 160), mode="bicubic", antialias=True)
    with torch.inference_mode():
        expected = model.forward_intermediates((resampled - 0.5) / 0.5, intermediates_only=True, indices=[0, 2])
        for feature, wanted in zip(encoder.tower(images), expected, strict=True):
            torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4)


def test_what_the_network_gives_out_is_what_its_classifier_reads(tmp_path):
    model, path = full_model("test_resnet", tmp_path)
    encoder = PretrainedEncoder("test_resnet", 64, embed_dim=8, weights=path, pooling="output").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        (output,) = encoder.tower(images)
        logits = model(normalized(images, "test_resnet"))
        torch.testing.assert_close(model.fc(output), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean_std", "mean"])
def test_pooled_numbers_by_their_definition(pooling):
    encoder = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, pooling=pooling).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        embeddings = encoder(images)
        maps = [each.double().numpy() for each in encoder.tower(images)]
    numbers = []
    for each in maps:
        deviation = np.sqrt(each.var(axis=(2, 3)) + 1e-6)
        statistics = [each.mean(axis=(2, 3))] + ([deviation] if pooling == "mean_std" else [])
        joined = np.concatenate(statistics, axis=1)
        centered = joined - joined.mean(axis=1, keepdims=True)
        numbers.append(centered / np.sqrt(np.square(centered).mean(axis=1, keepdims=True) + 1e-5))
    projection = encoder.reader.projection
    weight, bias = projection.weight.detach().double().numpy(), projection.bias.detach().double().numpy()
    expected = np.concatenate(numbers, axis=1) @ weight.T + bias
    np.testing.assert_allclose(embeddings.numpy(), expected, rtol=0, atol=1e-4)


def test_each_position_of_each_stage_is_a_token():
    encoder = PretrainedEncoder(
        "test_efficientnet", 64, embed_dim=16, weights=None, pooling="tokens", stages=(3, 4), num_blocks=1
    ).eval()
    assert encoder.reader.transformer.num_tokens == 4 * 4 + 2 * 2
    maps = [each.detach().requires_grad_() for each in encoder.tower(torch.rand(1, 3, 64, 64))]
    encoder.reader(maps).square().sum().backward()
    for each in maps:
        assert each.grad.abs().sum(dim=1).min() > 0


def test_pooled_numbers_of_half_precision_do_not_overflow():
    encoder = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, stages=(4,)).eval().half()
    huge = torch.full((1, 64, 2, 2), 3e4, dtype=torch.float16)
    huge[..., 0] = -3e4
    assert encoder.reader([huge]).isfinite().all()


def step(encoder):
    """One step of an optimizer that moves everything it is given."""
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    parameters = [each for each in encoder.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
    encoder(torch.rand(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    return {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}


def test_a_frozen_network_stays_as_it_is():
    encoder = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, frozen=True)
    changed = step(encoder)
    assert changed == {name for name in encoder.state_dict() if name.startswith("reader.")}
    assert encoder.reader.training
    assert not any(module.training for module in encoder.tower.modules())
    assert not any(each.requires_grad for each in encoder.tower.parameters())


def test_a_network_that_is_not_frozen_is_trained():
    encoder = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, frozen=False)
    unchanged = encoder.state_dict().keys() - step(encoder)
    assert unchanged == {"tower.mean", "tower.std"}
    assert all(module.training for module in encoder.modules())


def test_frozen_features_in_training_are_those_of_evaluation():
    # This network drops units and paths in training.
    encoder = PretrainedEncoder("test_vit", 64, embed_dim=8, weights=None, pooling="output", frozen=True).train()
    encoder.tower.network.network.pos_drop.p = 0.5
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(encoder.tower(images)[0], encoder.eval().tower(images)[0], rtol=0, atol=0)


def test_a_frozen_network_passes_gradients_to_the_images():
    encoder = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, frozen=True)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    encoder(images).square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_frozen_network_stays_frozen_in_a_copy_and_with_assigned_weights():
    encoder = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, frozen=True)
    with torch.device("meta"):
        empty = PretrainedEncoder("test_efficientnet", 64, embed_dim=8, weights=None, frozen=True)
    empty.load_state_dict(encoder.state_dict(), assign=True)
    assert not any(each.requires_grad for each in empty.tower.parameters())
    assert all(each.requires_grad for each in empty.reader.parameters())


@pytest.mark.parametrize("name", ["test_vit_relpos", "test_coatnet"])
def test_constants_of_the_network_survive_all_moves(name):
    encoder = PretrainedEncoder(name, 48, embed_dim=8, weights=None, pooling="output").eval()
    assert encoder.tower._constants.keys() >= {"resampling"}
    moved = PretrainedEncoder(name, 48, embed_dim=8, weights=None, pooling="output").eval()
    moved.to("meta").to_empty(device="cpu").half().float()
    for constant in encoder.tower._constants:
        assert torch.equal(moved.tower.get_buffer(constant), encoder.tower.get_buffer(constant))
    moved.load_state_dict(encoder.state_dict())
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        assert torch.equal(moved(images), encoder(images))


def test_normalization_of_ones_own():
    encoder = PretrainedEncoder(
        "test_efficientnet", 32, embed_dim=8, weights=None, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0)
    )
    seen = []
    encoder.tower.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(seen[0][0, :, 5, 7], torch.tensor([0.9, 0.4, 0.175]))


GOOD = {"name": "test_efficientnet", "image_size": 32, "embed_dim": 8, "weights": None}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": 3}, DTypeError, "name: .* got 3"),
        ({"name": "test_efficientnets"}, ConfigError, "name: .* got 'test_efficientnets'; did you mean test_eff"),
        ({"name": "test_efficientnet.no_such"}, ConfigError, "name: .* got 'test_efficientnet.no_such'"),
        ({"name": "hf-hub:timm/test_vit.r160_in1k"}, ConfigError, "name: .* got 'hf-hub"),
        ({"name": "local-dir:/tmp"}, ConfigError, "name: .* got 'local-dir"),
        ({"source": "keras"}, RangeError, "source: .* got 'keras'"),
        ({"pooling": "max"}, RangeError, "pooling: .* got 'max'"),
        ({"frozen": 1}, DTypeError, "frozen: .* got 1"),
        ({"learning_rate_scale": 0.0}, RangeError, "learning_rate_scale: expected > 0, got 0"),
        ({"stages": ()}, ConfigError, "stages: "),
        ({"stages": (2, 1)}, ConfigError, r"stages: expected increasing numbers, got \(2, 1\)"),
        ({"stages": (-1,)}, RangeError, r"stages\[0\]: .* got -1"),
        ({"stages": (9,)}, ConfigError, r"stages: expected 'test_efficientnet' to have the stages \(9,\), got fewer$"),
        ({"name": "test_vit", "stages": (99,)}, ConfigError, r"stages: expected 'test_vit' to have the stages \(99,\)"),
        (
            {"stages": (1,), "pooling": "output"},
            ConfigError,
            r"stages: expected None with pooling 'output', got \(1,\)",
        ),
        ({"weights": 7}, DTypeError, "weights: .* got 7"),
        ({"weights": "embedded"}, ConfigError, "name: expected 'tf_efficientnet_lite0' .* got 'test_efficientnet'"),
        ({"mean": (0.5, 0.5, 0.5)}, ConfigError, "std: expected three numbers as mean, got None"),
        ({"std": (0.5, 0.5, 0.5)}, ConfigError, "std: expected None as mean"),
        ({"mean": (0.5,), "std": (0.5, 0.5, 0.5)}, ConfigError, "mean: expected three numbers"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.0)}, RangeError, r"std\[2\]: .* > 0, got 0"),
        ({"mean": (0.5, float("nan"), 0.5), "std": (1.0,) * 3}, RangeError, r"mean\[1\]: .* got nan"),
        ({"name": "test_resnet", "image_size": 1, "stages": None}, None, None),
        ({"pooling": "tokens", "num_heads": 3}, ConfigError, "num_heads: .* got 3"),
        (
            {"name": "ViT-S-33", "source": "open_clip"},
            ConfigError,
            "name: expected a model of open_clip, got 'ViT-S-33'",
        ),
        ({"name": "ViT-S-32", "source": "open_clip", "weights": "hub"}, ConfigError, "weights: .* got 'hub'"),
    ],
)
def test_arguments_that_do_not_fit(changes, error, message):
    if error is None:
        PretrainedEncoder(**(GOOD | changes))
        return
    with pytest.raises(error, match=message):
        PretrainedEncoder(**(GOOD | changes))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 32, 32), ShapeError, "images: "),
        (torch.zeros(1, 1, 32, 32), ShapeError, "images: expected channels = 3, got 1"),
        (torch.zeros(1, 3, 32, 64), ShapeError, "images: expected width = 32, got 64"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), DTypeError, "images: .* got torch.uint8"),
        (torch.full((1, 3, 32, 32), -2.0), RangeError, "images: .* got -2"),
    ],
)
def test_images_that_do_not_fit(images, error, message):
    with pytest.raises(error, match=message):
        PretrainedEncoder(**GOOD)(images)


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, bmrl.encoders; print({'timm', 'open_clip', 'huggingface_hub'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [("timm", {}, "pretrained"), ("open_clip", {"name": "ViT-S-32", "source": "open_clip"}, "train")],
)
def test_a_missing_library_is_named_with_its_extra(module, options, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module}.*\[{extra}\]"):
        PretrainedEncoder(**(GOOD | options))


@pytest.fixture
def tiny_clip(tmp_path, request):
    """A small CLIP that open_clip knows."""
    open_clip = pytest.importorskip("open_clip")
    tower = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    if "resnet" in getattr(request, "param", "vit"):
        tower = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    text = {"context_length": 8, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}
    path = tmp_path / f"bmrl-test-{tmp_path.name}.json"
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": tower, "text_cfg": text}))
    before = list(open_clip.factory._MODEL_CONFIG_PATHS)
    open_clip.add_model_config(path)
    yield path.stem, open_clip.create_model(path.stem).eval()
    open_clip.factory._MODEL_CONFIG_PATHS[:] = before
    open_clip.factory._rescan_model_configs()


@pytest.mark.parametrize("tiny_clip", ["vit", "resnet"], indirect=True)
@pytest.mark.parametrize("tower_alone", [True, False])
def test_the_embedding_of_a_clip_is_open_clips(tiny_clip, tower_alone, tmp_path):
    name, model = tiny_clip
    torch.save((model.visual if tower_alone else model).state_dict(), tmp_path / "clip.pt")
    size = model.visual.image_size
    size = size if isinstance(size, int) else size[0]
    options = {"source": "open_clip", "weights": tmp_path / "clip.pt", "mean": (0.5,) * 3, "std": (0.25,) * 3}
    encoder = PretrainedEncoder(name, size, embed_dim=8, pooling="output", **options).eval()
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.tower(images)[0], model.encode_image((images - 0.5) / 0.25))
        mapped = PretrainedEncoder(name, size, embed_dim=8, stages=(0, 2), **options).eval()
        found = model.visual.forward_intermediates((images - 0.5) / 0.25, indices=[0, 2], intermediates_only=True)
        torch.testing.assert_close(mapped.tower(images), found["image_intermediates"])


@pytest.mark.parametrize("tiny_clip", ["vit", "resnet"], indirect=True)
def test_no_parameter_of_a_clip_is_left_over(tiny_clip):
    name, _ = tiny_clip
    for options in ({"stages": (1,)}, {"pooling": "tokens", "num_blocks": 1}, {"pooling": "output"}, {}):
        encoder = PretrainedEncoder(name, 64, embed_dim=8, source="open_clip", weights=None, frozen=False, **options)
        encoder(torch.rand(4, 3, 64, 64)).square().sum().backward()
        assert [key for key, each in encoder.named_parameters() if each.grad is None] == []


@pytest.mark.parametrize(("name", "mean"), [("ViT-S-32", 0.48145466), ("ViT-B-16-SigLIP", 0.5), ("MobileCLIP-S1", 0.0)])
def test_the_mean_of_a_clip_is_that_of_its_published_weights(name, mean):
    from bmrl.encoders._towers.from_open_clip import _pixels

    open_clip = pytest.importorskip("open_clip")
    assert _pixels(open_clip, name, listed=True)[0][0] == pytest.approx(mean)
    assert _pixels(open_clip, "ViT-L-14", listed=True) == (None, None)  # published with two
