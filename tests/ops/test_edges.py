from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bmrl.errors import ShapeError
from bmrl.ops import Sobel, sobel
from bmrl.ops._aten.edges import sobel_adjoint

UINT8 = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 2), st.sampled_from([1, 3]), st.integers(2, 6), st.integers(2, 6))
)


def oracle(images: np.ndarray) -> torch.Tensor:
    """Pixel by pixel, Python floats."""
    batch, channels, height, width = images.shape
    result = torch.zeros(batch, 1, height, width, dtype=torch.float64)

    def mirrored(index: int, size: int) -> int:
        if index < 0:
            return -index
        return 2 * (size - 1) - index if index >= size else index

    for b in range(batch):
        gray = [
            [
                float(images[b, 0, y, x]) / 255
                if channels == 1
                else sum(w * float(images[b, c, y, x]) / 255 for c, w in enumerate((0.299, 0.587, 0.114)))
                for x in range(width)
            ]
            for y in range(height)
        ]
        for y in range(height):
            for x in range(width):
                gx = gy = 0.0
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        value = gray[mirrored(y + dy, height)][mirrored(x + dx, width)]
                        gx += dx * (2 - abs(dy)) * value
                        gy += dy * (2 - abs(dx)) * value
                result[b, 0, y, x] = math.sqrt(gx * gx + gy * gy)
    return result


@given(UINT8)
def test_equals_definition(images):
    expected = oracle(images)
    tensor = torch.from_numpy(images)
    torch.testing.assert_close(sobel(tensor).double(), expected, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(sobel(tensor.double() / 255), expected, rtol=1e-12, atol=1e-12)


@given(UINT8, st.floats(0.1, 4))
def test_scales_with_contrast_and_ignores_brightness(images, factor):
    tensor = torch.from_numpy(images).double() / 255
    torch.testing.assert_close(sobel(factor * tensor + 3), factor * sobel(tensor), rtol=1e-9, atol=1e-9)


@given(UINT8)
def test_turns_with_the_image(images):
    tensor = torch.from_numpy(images).double() / 255
    for turned in (lambda t: t.flip(-1), lambda t: t.flip(-2), lambda t: t.mT):
        torch.testing.assert_close(sobel(turned(tensor)), turned(sobel(tensor)), rtol=1e-9, atol=1e-12)


def test_layouts(laid_out):
    expected = sobel(laid_out.double() / 255)
    torch.testing.assert_close(sobel(laid_out).double(), expected, rtol=1e-6, atol=2e-6)
    assert sobel(laid_out).shape == (len(laid_out), 1, 12, 10)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_rounded_once(dtype, atol):
    images = torch.rand(1, 3, 8, 8).to(dtype)
    result = sobel(images)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), sobel(images.double()), rtol=0, atol=atol)


def test_gradients():
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sobel, (images,))


def test_gradient_of_a_flat_image_is_zero():
    images = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    sobel(images).sum().backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_nan_stays_near_its_pixel():
    images = torch.rand(1, 3, 7, 7)
    images[0, 1, 3, 3] = math.nan
    poisoned = sobel(images).isnan()[0, 0]
    assert poisoned[2:5, 2:5].sum() >= 8  # the center's own weight is zero times NaN
    assert poisoned.sum() <= 9


def test_compiles_and_traces():
    images = torch.rand(2, 3, 8, 8)
    expected = sobel(images)
    torch.testing.assert_close(torch.compile(sobel, fullgraph=True, backend="aot_eager")(images), expected)
    traced = torch.jit.trace(Sobel(), images)
    torch.testing.assert_close(traced(images[:1]), expected[:1])


def test_rejects_an_image_too_small_to_mirror():
    with pytest.raises(ShapeError, match=r"images: expected height and width >= 2 .*, got \(1, 3, 1, 5\)"):
        sobel(torch.zeros(1, 3, 1, 5))


def test_a_flat_image_has_no_gradient_after_tracing_and_in_forward_mode():
    traced = torch.jit.trace(Sobel(), torch.rand(1, 3, 6, 6))
    flat = torch.full((1, 3, 6, 6), 0.3, requires_grad=True)
    traced(flat).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))
    _, tangent = torch.func.jvp(sobel, (flat.detach(),), (torch.rand(1, 3, 6, 6),))
    assert torch.equal(tangent, torch.zeros(1, 1, 6, 6))


@pytest.mark.parametrize("contrast", [1.0, 1e-3, 1e-6, 1e-9])
def test_the_adjoint_is_the_gradient_at_any_contrast(contrast):
    images = (0.5 + contrast * torch.rand(2, 3, 5, 6, dtype=torch.float64)).requires_grad_()
    slopes = torch.randn(2, 1, 5, 6, dtype=torch.float64)
    (expected,) = torch.autograd.grad(sobel(images), images, slopes)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(sobel_adjoint(slopes, images.detach()), expected, rtol=1e-5, atol=1e-6)
