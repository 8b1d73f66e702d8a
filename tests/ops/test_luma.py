from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.errors import DTypeError, ShapeError
from bmrl.ops import Grayscale, grayscale
from bmrl.ops._aten.luma import gray_levels, levels_of_luma, luma, unit_range

PIXEL = st.tuples(*[st.integers(0, 255)] * 3)


def image_of(pixel: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.tensor(pixel, dtype=torch.float64).reshape(1, 3, 1, 1)
    return tensor.to(torch.uint8) if dtype == torch.uint8 else (tensor / 255).to(dtype)


@given(PIXEL)
def test_equals_bt601(pixel):
    red, green, blue = pixel
    expected = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    assert grayscale(image_of(pixel, torch.uint8)).item() == pytest.approx(expected, abs=2e-7)
    assert grayscale(image_of(pixel, torch.float64)).item() == pytest.approx(expected, abs=1e-15)


@given(PIXEL)
def test_levels_are_integer_arithmetic_and_survive_the_float_detour(pixel):
    red, green, blue = pixel
    expected = (299 * red + 587 * green + 114 * blue) // 1000
    assert gray_levels(image_of(pixel, torch.uint8)).item() == expected
    assert gray_levels(image_of(pixel, torch.float32)).item() == expected
    assert gray_levels(image_of(pixel, torch.float64)).item() == expected


def test_every_gray_keeps_its_level_as_float():
    grays = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    assert torch.equal(gray_levels(grays.float() / 255), torch.arange(256.0).reshape(1, 1, 256))


def test_levels_of_every_color_are_those_of_its_luma():
    channel = torch.arange(256, dtype=torch.uint8)
    for red in channel:
        colors = torch.stack(torch.broadcast_tensors(red, channel[:, None], channel))[None]
        assert torch.equal(levels_of_luma(luma(unit_range(colors))), gray_levels(colors))


def test_one_channel_is_taken_as_it_is():
    image = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(grayscale(image), torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert torch.equal(Grayscale()(image), grayscale(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_a_floating_dtype(dtype):
    assert grayscale(torch.zeros(1, 3, 2, 2, dtype=dtype)).dtype == dtype


def test_rejects_bad_images():
    with pytest.raises(ShapeError, match=r"images: expected shape \(batch, channels, height, width\), got \(3, 4, 4\)"):
        grayscale(torch.zeros(3, 4, 4))
    with pytest.raises(ShapeError, match=r"images: expected channels = 1 or 3, got 4 \(shape \(1, 4, 2, 2\)\)"):
        grayscale(torch.zeros(1, 4, 2, 2))
    with pytest.raises(DTypeError, match=r"images: expected torch.uint8 or a floating-point dtype, got torch.int64"):
        grayscale(torch.zeros(1, 3, 2, 2, dtype=torch.int64))
    with pytest.raises(DTypeError, match=r"images: expected a torch.Tensor, got list"):
        grayscale([[0.0]])
