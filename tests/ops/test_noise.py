from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bmrl.errors import RangeError
from bmrl.ops import SRM, srm
from bmrl.ops._aten.noise import srm_adjoint

KB = np.array([[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]]) / 4
KV = np.array([[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]) / 12
H2 = np.array([[0] * 5, [0] * 5, [0, 1, -2, 1, 0], [0] * 5, [0] * 5]) / 2

UINT8 = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 2), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(1, 6))
)


def oracle(images: np.ndarray, truncation: float = 3.0) -> torch.Tensor:
    """Tap by tap with the kernels as they are printed."""
    batch, _, height, width = images.shape
    total = np.zeros((batch, height + 4, width + 4))
    total[:, 2:-2, 2:-2] = images.astype(np.float64).sum(axis=1) / 255
    result = np.zeros((batch, 3, height, width))
    for channel, kernel in enumerate((KB, KV, H2)):
        for y in range(height):
            for x in range(width):
                result[:, channel, y, x] = (total[:, y : y + 5, x : x + 5] * kernel).sum(axis=(1, 2))
    return torch.from_numpy(result.clip(-truncation, truncation))


@given(UINT8)
def test_equals_definition(images):
    expected = oracle(images)
    tensor = torch.from_numpy(images)
    torch.testing.assert_close(srm(tensor).double(), expected, rtol=1e-6, atol=5e-6)
    torch.testing.assert_close(srm(tensor.double() / 255), expected, rtol=1e-12, atol=1e-12)


@given(UINT8, st.floats(0.01, 2))
def test_truncates(images, truncation):
    result = srm(torch.from_numpy(images).double() / 255, truncation=truncation)
    torch.testing.assert_close(result, oracle(images, truncation), rtol=1e-12, atol=1e-12)


def test_brightness_leaves_no_residual_away_from_the_border():
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(srm(images + 0.3)[inner], srm(images)[inner], rtol=0, atol=1e-12)


def test_layouts(laid_out):
    expected = oracle(laid_out.numpy())
    torch.testing.assert_close(srm(laid_out).double(), expected, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    images = torch.rand(1, 3, 8, 8).to(dtype)
    torch.testing.assert_close(srm(images), srm(images.double()).to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_gradients():
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(srm, (images,))


def test_compiles_and_traces():
    images = torch.rand(2, 3, 8, 8)
    expected = srm(images)
    torch.testing.assert_close(
        torch.compile(srm, fullgraph=True, backend="aot_eager")(images), expected, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(torch.jit.trace(SRM(), images)(images[:1]), expected[:1])


@pytest.mark.parametrize("make", [lambda t: srm(torch.zeros(1, 3, 4, 4), truncation=t), lambda t: SRM(truncation=t)])
def test_rejects_a_truncation_that_is_not_positive(make):
    with pytest.raises(RangeError, match=r"truncation: expected > 0, got 0"):
        make(0)


@pytest.mark.parametrize("truncation", [0.1, 0.3, 0.75])
def test_the_adjoint_is_the_gradient(truncation):
    images = torch.rand(2, 3, 7, 7, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    (expected,) = torch.autograd.grad(srm(images, truncation=truncation), images, slopes)
    torch.testing.assert_close(srm_adjoint(slopes, images.detach(), truncation), expected, rtol=1e-12, atol=1e-12)


def test_the_adjoint_passes_a_residual_that_just_meets_the_truncation():
    # Nothing of it was cut off. (PyTorch's own clamp passes it in some versions and not in others.)
    images = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    images[..., 3, 3] = 0.5
    assert srm(images, truncation=10)[0, 2, 3, 3] == -0.5
    slopes = torch.zeros(1, 3, 7, 7, dtype=torch.float64)
    slopes[0, 2, 3, 3] = 1  # of H2
    assert srm_adjoint(slopes, images, 0.5)[0, 0, 3, 2:5].tolist() == [0.5, -1, 0.5]
    assert not srm_adjoint(slopes, images, 0.49).any()
