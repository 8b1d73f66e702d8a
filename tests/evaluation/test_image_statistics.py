from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bmrl.errors import DTypeError, ShapeError
from bmrl.evaluation.image_statistics import color_spectrum_statistics


def oracle(image):
    """The definition in NumPy, for one float64 image (3, h, w) in [0, 1]; the rings by a loop over frequencies."""
    height, width = image.shape[1:]
    numbers = [channel.mean() for channel in image] + [channel.std() for channel in image]
    for channel in image:
        ordered = np.sort(channel.ravel())
        numbers += [ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95)]
    numbers += [np.corrcoef(image[a].ravel(), image[b].ravel())[0, 1] for a, b in ((0, 1), (0, 2), (1, 2))]
    luma = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2 / (height * width)
    rings = [[] for _ in range(11)]
    for y in range(height):
        for x in range(width):
            dy, dx = min(y, height - y), min(x, width - x)
            ring = math.isqrt(22**2 * (dy**2 * width**2 + dx**2 * height**2) // (height * width) ** 2)
            if (dy or dx) and ring < 11:
                rings[ring].append(power[y, x])
    return numbers + [np.log10(max(np.mean(ring), 1e-12)) if ring else -12.0 for ring in rings]


@settings(max_examples=30)
@example(0, 25, 40)  # has frequencies on the border between two rings
@given(st.integers(0, 2**31), st.integers(23, 40), st.integers(23, 40))
def test_equals_definition(seed, height, width):
    images = torch.randint(
        0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    found = color_spectrum_statistics(images)
    assert found.shape == (2, 26)
    assert found.dtype == torch.float32
    expected = np.array([oracle(image.double().numpy() / 255) for image in images])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=2e-4)


def test_uint8_and_float_agree_and_the_input_is_left_alone():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    torch.testing.assert_close(color_spectrum_statistics(images), color_spectrum_statistics(images.double() / 255))
    assert torch.equal(images, before)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_constant_image_has_no_spread_correlation_or_spectrum(level):
    found = color_spectrum_statistics(torch.full((1, 3, 24, 24), level, dtype=torch.uint8))[0]
    torch.testing.assert_close(found[:3], torch.full((3,), level / 255))
    torch.testing.assert_close(found[3:6], torch.zeros(3), atol=1e-6, rtol=0)
    assert (found[12:15] == 0).all()
    assert (found[15:] < -9).all()


def test_knows_nothing_of_left_and_right():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        color_spectrum_statistics(images), color_spectrum_statistics(images.flip(3)), rtol=1e-4, atol=1e-4
    )


def test_rejects():
    with pytest.raises(ShapeError, match=r"images: expected channels = 3, got 1"):
        color_spectrum_statistics(torch.zeros(1, 1, 8, 8))
    with pytest.raises(DTypeError, match=r"images: expected torch.uint8 or a floating-point dtype, got torch.int64"):
        color_spectrum_statistics(torch.zeros(1, 3, 8, 8, dtype=torch.int64))
