from __future__ import annotations

import pytest
import torch

from bmrl.encoders import AppearanceEncoder, EdgeEncoder, NoiseEncoder
from bmrl.errors import ConfigError, DTypeError, RangeError, ShapeError
from bmrl.models import MultiPerspectiveVisualEncoder, paper_views

SMALL = {"embed_dim": 8, "channels": (3, 4), "convs_per_stage": (1, 1), "num_blocks": 1, "num_heads": 2, "mlp_dim": 8}


def test_noise_encoder_keeps_the_map_as_large_as_the_others():
    assert NoiseEncoder(8, token_patch=1, **SMALL).transformer.num_tokens == 16
    assert AppearanceEncoder(16, token_patch=1, **SMALL).transformer.num_tokens == 16
    assert AppearanceEncoder(16, **SMALL).transformer.num_tokens == 1


def test_rejects_bad_input():
    with pytest.raises(ShapeError, match=r"images: expected channels = 1, got 3"):
        EdgeEncoder(16, **SMALL)(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    "encoder",
    [
        AppearanceEncoder(16, **SMALL),
        MultiPerspectiveVisualEncoder(
            {"appearance": paper_views(16, **SMALL)["appearance"]}, image_size=16, embed_dim=8
        ),
    ],
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
    with pytest.raises(ConfigError, match=r"input_size: expected a multiple of 4, got 18"):
        AppearanceEncoder(18, **SMALL)
