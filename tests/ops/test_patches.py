from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.feature import graycomatrix, graycoprops

from bmrl.errors import DTypeError, ShapeError
from bmrl.ops import PatchHomogeneity, RichestPatch, ViewExtractor, patch_homogeneity, richest_patch
from bmrl.ops._aten.patches import _sum_whole_numbers

UINT8 = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 2), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9))
)


def oracle(images: np.ndarray, patch_size: int) -> np.ndarray:
    """scikit-image's co-occurrence matrix of every patch."""
    if images.shape[1] == 3:
        red, green, blue = images.astype(np.int64).transpose(1, 0, 2, 3)
        levels = ((299 * red + 587 * green + 114 * blue) // 1000).astype(np.uint8)
    else:
        levels = images[:, 0]
    rows, columns = levels.shape[1] // patch_size, levels.shape[2] // patch_size
    result = np.zeros((len(levels), rows, columns))
    for b, r, q in np.ndindex(result.shape):
        patch = levels[b, r * patch_size : (r + 1) * patch_size, q * patch_size : (q + 1) * patch_size]
        matrix = graycomatrix(patch, [1], [0], levels=256, symmetric=True, normed=True)
        result[b, r, q] = graycoprops(matrix, "homogeneity")[0, 0]
    return result


@given(UINT8, st.integers(2, 4))
def test_equals_scikit_image(images, patch_size):
    expected = torch.from_numpy(oracle(images, patch_size))
    tensor = torch.from_numpy(images)
    torch.testing.assert_close(
        patch_homogeneity(tensor, patch_size=patch_size).double(), expected, rtol=1e-6, atol=1e-7
    )
    exact = patch_homogeneity(tensor.double() / 255, patch_size=patch_size)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=1e-12)


@given(UINT8, st.integers(2, 4))
def test_richest_is_the_least_homogeneous(images, patch_size):
    patches, indices = richest_patch(torch.from_numpy(images), patch_size=patch_size)
    homogeneity = oracle(images, patch_size).reshape(len(images), -1)
    columns = images.shape[3] // patch_size
    for row, index in enumerate(indices.tolist()):
        # The mean of terms rounded to multiples of 2**-24.
        assert homogeneity[row, index] <= homogeneity[row].min() + 2**-24
        y, x = index // columns * patch_size, index % columns * patch_size
        expected = images[row, :, y : y + patch_size, x : x + patch_size]
        assert np.array_equal(patches[row].numpy(), expected)


def test_a_tie_goes_to_the_lowest_index():
    tile = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    _, indices = richest_patch(tile.repeat(1, 1, 3, 2), patch_size=4)
    assert indices.tolist() == [0]


def test_a_tie_of_mirrored_patches_goes_to_the_lowest_index():
    # Equal terms in another order: a floating-point mean would differ by rounding.
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        quarter = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8, generator=rng)
        half = torch.cat((quarter, quarter.flip(-1)), dim=-1)
        _, indices = richest_patch(torch.cat((half, half.flip(-2)), dim=-2))
        assert indices.tolist() == [0]


@pytest.mark.parametrize("width", [1, 111, 4096, 4097, 10_000])
def test_whole_numbers_add_up_exactly(width):
    random = torch.Generator().manual_seed(width)
    values = torch.cat((torch.randint(0, 2**24 + 1, (3, width), generator=random), torch.full((2, width), 2**24)))
    assert _sum_whole_numbers(values.float()).item() == values.sum().item()


@pytest.mark.parametrize("width", [4096, 4099, 5001, 8193])
@pytest.mark.parametrize("value", [2**24, 2**24 - 1])
def test_the_largest_whole_numbers_add_up_exactly(width, value):
    # Odd halves whose sum leaves what float32 counts without a gap.
    assert _sum_whole_numbers(torch.full((1, width), float(value))).item() == width * value


def test_remainder_is_ignored():
    images = torch.zeros(1, 3, 9, 11, dtype=torch.uint8)
    images[..., 8:, :] = torch.randint(0, 256, (1, 3, 1, 11), dtype=torch.uint8)
    images[..., 8:] = torch.randint(0, 256, (1, 3, 9, 3), dtype=torch.uint8)
    assert torch.equal(patch_homogeneity(images, patch_size=4), torch.ones(1, 2, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_patches_keep_the_images_dtype(dtype):
    patches, indices = richest_patch(torch.ones(2, 3, 8, 8).to(dtype), patch_size=4)
    assert (patches.dtype, indices.dtype, tuple(patches.shape)) == (dtype, torch.int64, (2, 3, 4, 4))


def test_layouts(laid_out):
    patches, indices = richest_patch(laid_out, patch_size=5)
    expected_patches, expected_indices = richest_patch(laid_out.contiguous().clone(), patch_size=5)
    assert torch.equal(patches, expected_patches)
    assert torch.equal(indices, expected_indices)


def test_gradient_reaches_the_chosen_patch_only():
    images = torch.rand(1, 3, 4, 8, requires_grad=True)
    patches, indices = richest_patch(images, patch_size=4)
    patches.sum().backward()
    chosen = indices.item()
    assert images.grad[..., 4 * chosen : 4 * chosen + 4].eq(1).all()
    assert images.grad.sum() == 3 * 16


def test_compiles_and_traces():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = richest_patch(images, patch_size=4)
    compiled = torch.compile(RichestPatch(patch_size=4), fullgraph=True, backend="aot_eager")(images)
    traced = torch.jit.trace(RichestPatch(patch_size=4), images)(images[:1])
    assert torch.equal(compiled[0], expected[0])
    assert torch.equal(traced[0], expected[0][:1])
    assert torch.equal(PatchHomogeneity(patch_size=4)(images), patch_homogeneity(images, patch_size=4))


@pytest.mark.parametrize("operator", [patch_homogeneity, richest_patch])
def test_rejects_patches_that_do_not_fit(operator):
    images = torch.zeros(1, 3, 4, 8)
    with pytest.raises(ShapeError, match=r"patch_size: expected at most height and width of \(1, 3, 4, 8\), got 5"):
        operator(images, patch_size=5)
    with pytest.raises(ShapeError, match=r"patch_size: expected >= 2 .*, got 1"):
        operator(images, patch_size=1)
    with pytest.raises(DTypeError, match=r"patch_size: expected an int, got float"):
        operator(images, patch_size=2.0)


@pytest.mark.parametrize("module", [PatchHomogeneity, RichestPatch, ViewExtractor])
def test_modules_reject_a_patch_when_they_are_made(module):
    with pytest.raises(ShapeError, match=r"patch_size: expected >= 2 .*, got 0"):
        module(patch_size=0)
