"""Alterations against the libraries that do the same another way."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.io import decode_jpeg, encode_jpeg
from torchvision.transforms.v2 import functional as tv

from bmrl.data import ALTERATIONS, alterations
from bmrl.data.alterations import read_versions
from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.images import read_image


def smooth(height=48, width=40, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


@pytest.mark.filterwarnings("ignore:The image decoding")
def test_jpeg_is_that_of_another_library():
    image = smooth()
    own = alterations.recompress(image, 75).int()
    other = decode_jpeg(encode_jpeg(image, quality=75)).int()  # libjpeg, 4:2:0, as Pillow does
    assert (own - other).abs().max() <= 2
    assert (own - image.int()).abs().max() > 3


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_lower_quality_loses_more(codec):
    image = smooth()
    losses = [
        (alterations.recompress(image, quality, codec=codec).float() - image).square().mean().item()
        for quality in (95, 60, 20)
    ]
    assert losses == sorted(losses)


def test_chroma_subsampling_loses_chroma_alone():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[0, :, ::2] = 200  # red stripes, one pixel wide
    full, halved = (alterations.recompress(image, 98, subsampling=kind) for kind in ("4:4:4", "4:2:0"))

    def error(values):
        return (values.float() - image).abs().mean()

    assert error(full) < 5 < error(halved)


def test_the_grid_of_blocks_is_shifted():
    image = smooth()
    one, other = (alterations.recompress(image, 20, offset=offset) for offset in ((0, 0), (3, 5)))
    steps = [(each.float().diff(dim=2).abs().mean(dim=(0, 1))) for each in (one, other)]
    assert steps[0].reshape(-1)[7::8].mean() > steps[0].mean()  # a block ends after every eighth column
    assert steps[1][2::8].mean() > steps[1].mean()  # 5 columns were before the picture


def test_rescale_is_the_same_as_torchvision_does():
    image = smooth(64, 64)
    own = alterations.rescale(image, 0.5).int()
    small = tv.resize(image, [32, 32], interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    other = tv.resize(small, [64, 64], interpolation=tv.InterpolationMode.BICUBIC, antialias=True).int()
    assert (own - other).abs().max() <= 2


@given(st.integers(-7, 7), st.integers(-7, 7))
def test_move_is_slicing_of_what_is_mirrored(down, right):
    image = smooth(8, 9)
    mirrored = np.pad(image.numpy(), ((0, 0), (7, 7), (7, 7)), mode="reflect")
    expected = mirrored[:, 7 - down : 15 - down, 7 - right : 16 - right]
    assert (alterations.move(image, down, right).numpy() == expected).all()


def test_crop_keeps_the_part_that_it_names():
    image = smooth(40, 40)
    part = Image.fromarray(image[:, 2:38, 4:40].permute(1, 2, 0).numpy()).resize((40, 40), Image.Resampling.BICUBIC)
    cropped = alterations.crop(image, 0.9, place=(0.5, 1.0))
    assert (cropped.permute(1, 2, 0).numpy() == np.array(part)).all()
    assert torch.equal(alterations.crop(image, 1.0), image)


def test_colors():
    image = smooth()
    assert torch.equal(alterations.shift_colors(image, brightness=1, contrast=1, saturation=1), image)
    gray = alterations.shift_colors(image, brightness=1, contrast=1, saturation=1e-9).int()
    weights = image.double() * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    assert (gray - weights.sum(0).round().int()).abs().max() <= 1


def test_noise_has_the_deviation_that_it_names():
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    noisy = alterations.add_noise(image, 4.0, rng=np.random.default_rng(0))
    assert (noisy.double() - 128).std().item() == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("size", [(48, 40), (16, 128), (5, 4)])
def test_named_ones_change_pixels_alone_and_always_the_same(name, size):
    image = smooth(*size)
    before = image.clone()
    altered = ALTERATIONS[name](image)
    assert (altered.shape, altered.dtype) == (image.shape, torch.uint8)
    assert torch.equal(image, before)
    assert torch.equal(altered, ALTERATIONS[name](image))
    assert not torch.equal(altered, image)
    assert altered.is_contiguous()


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (torch.zeros(3, 8, 8), DTypeError),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), ShapeError),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ShapeError),
        ("a.png", DTypeError),
    ],
)
def test_only_pictures_are_altered(image, error):
    with pytest.raises(error, match=r"^image: expected "):
        ALTERATIONS["jpeg75"](image)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ("recompress", {"quality": 0}, "quality: expected an integer >= 1"),
        ("recompress", {"quality": 50, "codec": "png"}, "codec: expected 'jpeg' or 'webp', got 'png'"),
        ("recompress", {"quality": 50, "offset": (8, 0)}, "offset: expected an integer >= 0 and <= 7, got 8"),
        ("rescale", {"factor": 0}, "factor: expected > 0, got 0"),
        ("rescale", {"factor": 0.5, "up": "nearest"}, "up: expected 'box' or"),
        ("crop", {"share": 1.5}, "share: expected at most 1, got 1.5"),
        ("crop", {"share": 0.5, "place": (0.5, 2.0)}, "place: expected numbers in 0 .. 1, got 2.0"),
        ("move", {"down": 48, "right": 0}, "down: expected an integer >= -47 and <= 47, got 48"),
        ("blur", {"radius": float("nan")}, "radius: expected > 0, got nan"),
    ],
)
def test_strengths_are_checked(change, arguments, message):
    with pytest.raises(RangeError, match=message):
        getattr(alterations, change)(smooth(), **arguments)


def test_versions_are_altered_at_the_own_resolution(tmp_path):
    image = smooth(60, 90)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.save(tmp_path / "a.png")
    as_it_is, halved = read_versions(tmp_path / "a.png", 32, [None, ALTERATIONS["half"]])
    assert torch.equal(as_it_is, read_image(tmp_path / "a.png", 32))
    square = ALTERATIONS["half"](image[:, :, 15:75].contiguous())
    file = io.BytesIO()
    Image.fromarray(square.permute(1, 2, 0).numpy()).save(file, "PNG")
    assert torch.equal(halved, read_image(file.getvalue(), 32))


def test_pictures_of_few_pixels_are_altered_after_they_are_resized(tmp_path):
    Image.new("RGB", (2, 3), (250, 3, 9)).save(tmp_path / "a.png")
    versions = read_versions(tmp_path / "a.png", 32, [None, *ALTERATIONS.values()])
    assert versions.shape == (1 + len(ALTERATIONS), 3, 32, 32)
