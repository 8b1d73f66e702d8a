from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.encoders import AppearanceEncoder, EdgeEncoder, MultiPerspectiveVisualEncoder, NoiseEncoder
from bmrl.errors import ConfigError, DTypeError, RangeError, ShapeError
from bmrl.ops import richest_patch, sobel, srm

SMALL = {"embed_dim": 8, "channels": (3, 4), "convs_per_stage": (1, 1), "num_blocks": 1, "num_heads": 2, "mlp_dim": 8}


def test_embedding_is_the_sum_of_the_views_class_tokens():
    torch.manual_seed(0)
    mpve = MultiPerspectiveVisualEncoder(16, **SMALL).eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    scaled = images.float() / 255
    patches, _ = richest_patch(images, patch_size=8)
    with torch.inference_mode():
        expected = mpve.appearance(scaled) + mpve.edge(sobel(images)) + mpve.noise(srm(patches))
        torch.testing.assert_close(mpve(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mpve(scaled), expected, rtol=1e-4, atol=1e-5)


def test_noise_truncation_reaches_the_noise_view():
    torch.manual_seed(0)
    mpve = MultiPerspectiveVisualEncoder(16, noise_truncation=0.05, appearance=False, edge=False, **SMALL).eval()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    patches, _ = richest_patch(images, patch_size=8)
    with torch.inference_mode():
        expected = mpve.noise(srm(patches, truncation=0.05))
        torch.testing.assert_close(mpve(images), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(expected, mpve.noise(srm(patches)), atol=1e-3)


@settings(max_examples=10)
@given(size=st.sampled_from([8, 16, 32, 48]), patch=st.sampled_from([4, 6, 8]), token_patch=st.sampled_from(["all", 1]))
def test_other_image_and_patch_sizes(size, patch, token_patch):
    encoder = MultiPerspectiveVisualEncoder(size, patch, token_patch=token_patch, **SMALL).eval()
    assert encoder(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, 8)


def test_noise_encoder_keeps_the_map_as_large_as_the_others():
    assert NoiseEncoder(8, token_patch=1, **SMALL).transformer.num_tokens == 16
    assert AppearanceEncoder(16, token_patch=1, **SMALL).transformer.num_tokens == 16
    assert AppearanceEncoder(16, **SMALL).transformer.num_tokens == 1


def test_rejects_bad_input():
    encoder = MultiPerspectiveVisualEncoder(16, **SMALL)
    with pytest.raises(ShapeError, match=r"images: expected height = 16, got 24"):
        encoder(torch.zeros(1, 3, 24, 16, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"images: expected channels = 3, got 1"):
        encoder(torch.zeros(1, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(DTypeError, match=r"images: expected torch.uint8 or a floating-point dtype, got torch.int32"):
        encoder(torch.zeros(1, 3, 16, 16, dtype=torch.int32))
    with pytest.raises(ShapeError, match=r"images: expected channels = 1, got 3"):
        EdgeEncoder(16, **SMALL)(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    "encoder",
    [AppearanceEncoder(16, **SMALL), MultiPerspectiveVisualEncoder(16, edge=False, noise=False, **SMALL)],
    ids=["alone", "as the only view"],
)
def test_appearance_takes_pictures_alone(encoder):
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    encoder(pictures)
    encoder(pictures * 1.9 - 0.45)  # as far as resampling goes
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    for others in ((pictures - mean) / deviation, pictures * 255, pictures * 2 - 1, pictures - 0.5):
        with pytest.raises(RangeError, match=r"^images: expected floating point values in \[0, 1\], got \S+$"):
            encoder(others)


def test_appearance_alone_rejects_what_is_no_batch_of_images():
    encoder = AppearanceEncoder(16, **SMALL)
    for bad, error in (
        ([[0.5]], DTypeError),
        (torch.rand(3, 16, 16), ShapeError),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), DTypeError),
    ):
        with pytest.raises(error, match=r"^images: expected"):
            encoder(bad)


def test_rejects_bad_settings():
    with pytest.raises(ConfigError, match=r"appearance, edge, noise: expected at least one True, got none"):
        MultiPerspectiveVisualEncoder(16, appearance=False, edge=False, noise=False, **SMALL)
    with pytest.raises(ConfigError, match=r"appearance: expected True with fusion 'cross_attention'"):
        MultiPerspectiveVisualEncoder(16, appearance=False, fusion="cross_attention", **SMALL)
    with pytest.raises(RangeError, match=r"fusion: expected 'sum' or 'cross_attention', got 'mean'"):
        MultiPerspectiveVisualEncoder(16, fusion="mean", **SMALL)
    with pytest.raises(ConfigError, match=r"input_size: expected a multiple of 4, got 18"):
        AppearanceEncoder(18, **SMALL)
