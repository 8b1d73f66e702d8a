"""The encoder of several views, against its parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.models import MultiPerspectiveVisualEncoder, View, paper_views
from bmrl.models.views import Pixels, Residuals
from bmrl.ops import Sobel, grayscale, richest_patch, sobel, srm

SMALL = {"embed_dim": 8, "channels": (3, 4), "convs_per_stage": (1, 1), "num_blocks": 1, "num_heads": 2, "mlp_dim": 8}
IMAGES = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make(*names, size=16, fusion="sum", more=None, **options):
    torch.manual_seed(0)
    views = paper_views(size, **SMALL, **options)
    chosen = {name: view for name, view in views.items() if not names or name in names}
    sizes = {"image_size": size, "embed_dim": 8, "num_heads": 2, "fusion": fusion}
    return MultiPerspectiveVisualEncoder(chosen | (more or {}), **sizes).eval()


def gray_encoder():
    return View(Gray(), nn.Sequential(nn.Flatten(), nn.Linear(256, 8)))


class Gray(nn.Module):
    """An operator that is not of the library."""

    def forward(self, images):
        self.seen = images
        return grayscale(images)


def test_embedding_is_the_sum_of_the_views_class_tokens():
    mpve = make()
    scaled = IMAGES.float() / 255
    patches, _ = richest_patch(IMAGES, patch_size=8)
    appearance, edge, noise = (view.encoder for view in mpve.views.values())
    with torch.inference_mode():
        expected = appearance(scaled) + edge(sobel(IMAGES)) + noise(srm(patches))
        torch.testing.assert_close(mpve(IMAGES), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mpve(scaled), expected, rtol=1e-4, atol=1e-5)


def test_truncation_reaches_the_noise_view():
    mpve = make("noise", truncation=0.05)
    patches, _ = richest_patch(IMAGES, patch_size=8)
    encoder = mpve.views["noise"].encoder
    with torch.inference_mode():
        expected = encoder(srm(patches, truncation=0.05))
        torch.testing.assert_close(mpve(IMAGES), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(expected, encoder(srm(patches)), atol=1e-3)


@settings(max_examples=10)
@given(size=st.sampled_from([8, 16, 32, 48]), patch=st.sampled_from([4, 6, 8]), token_patch=st.sampled_from(["all", 1]))
def test_other_image_and_patch_sizes(size, patch, token_patch):
    encoder = make(size=size, patch_size=patch, token_patch=token_patch)
    assert encoder(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, 8)


@pytest.mark.parametrize("names", [("appearance",), ("edge",), ("noise",), ("appearance", "noise"), ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_view_alone_sees_what_it_sees_among_others(names, dtype):
    mpve = make(*names).to(dtype)
    seen = {}
    for name, view in mpve.views.items():
        view.encoder.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    with torch.inference_mode():
        total = mpve(IMAGES)
        fused = dict(seen)
        alone = [view(IMAGES) for view in mpve.views.values()]
    for name, values in fused.items():
        assert values.dtype == dtype
        assert torch.equal(values, seen[name])
    assert torch.equal(total, torch.stack(alone).sum(dim=0))


@pytest.mark.parametrize("fusion", ["sum", "cross_attention"])
def test_a_fourth_view_takes_part_in_both_fusions(fusion):
    own = gray_encoder()
    mpve = make(fusion=fusion, more={"gray": own})
    with torch.inference_mode():
        with_own = mpve(IMAGES)
        assert torch.equal(own.operator.seen, IMAGES.float() / 255)
        mpve.views["gray"].encoder[1].weight.mul_(-3)
        assert not torch.allclose(mpve(IMAGES), with_own, atol=1e-3)
        if fusion == "sum":
            parts = [view(IMAGES) for view in mpve.views.values()]
            torch.testing.assert_close(mpve(IMAGES), parts[0] + parts[1] + parts[2] + parts[3])


def test_views_of_other_kinds_alone():
    mpve = make("none of the three", more={"gray": gray_encoder()})
    with torch.inference_mode():
        assert torch.equal(mpve(IMAGES), mpve.views["gray"](IMAGES))
    with pytest.raises(RangeError, match=r"images: expected floating point values in \[0, 1\]"):
        mpve(IMAGES.float())


def test_an_operator_sees_full_precision_in_a_half_model():
    mpve = make(more={"gray": gray_encoder()}).bfloat16()
    with torch.inference_mode():
        assert mpve(IMAGES).dtype == torch.bfloat16
    assert mpve.views["gray"].operator.seen.dtype == torch.float32


def test_two_noise_views_of_different_patches():
    small = View(Residuals(4, 0.1), nn.Sequential(nn.Flatten(), nn.Linear(48, 8)))
    mpve = make(more={"small": small})
    with torch.inference_mode():
        expected = torch.stack([view(IMAGES) for view in mpve.views.values()]).sum(dim=0)
        assert torch.equal(mpve(IMAGES), expected)


def test_the_papers_operators_are_computed_once(monkeypatch):
    calls = []
    for kind in (Sobel, Residuals):
        monkeypatch.setattr(kind, "forward", lambda self, images: calls.append(type(self)))
    with torch.inference_mode():
        make()(IMAGES)
    assert calls == []


def test_operators_equal_the_functions():
    patches, _ = richest_patch(IMAGES, patch_size=8)
    torch.testing.assert_close(Residuals(8, 0.2)(IMAGES), srm(patches, truncation=0.2))
    assert torch.equal(Pixels()(IMAGES), IMAGES / 255)


def test_rejects_bad_input():
    encoder = make()
    with pytest.raises(ShapeError, match=r"images: expected height = 16, got 24"):
        encoder(torch.zeros(1, 3, 24, 16, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"images: expected channels = 3, got 1"):
        encoder(torch.zeros(1, 1, 16, 16, dtype=torch.uint8))
    for one in (encoder, make("appearance")):
        with pytest.raises(DTypeError, match=r"images: expected torch.uint8 or a floating-point .*, got torch.int32"):
            one(torch.zeros(1, 3, 16, 16, dtype=torch.int32))
