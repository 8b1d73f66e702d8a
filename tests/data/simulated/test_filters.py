import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bmrl.data.simulated.filters import add_noise, dct_matrix, downsample, resize, separable, soften, tile

sizes, seeds = st.integers(6, 12), st.integers(0, 2**16)


def picture(seed, size):
    return np.random.default_rng(seed).random((size, size, 3), dtype=np.float32)


def mirrored(index, size):
    index = abs(index)
    return index if index < size else 2 * (size - 1) - index


@given(seeds, sizes, st.lists(st.floats(-1, 1), min_size=3, max_size=5).filter(lambda taps: len(taps) % 2))
def test_separable_equals_definition(seed, size, taps):
    image, reach = picture(seed, size), len(taps) // 2
    expected = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            for i, first in enumerate(taps):
                for j, second in enumerate(taps):
                    source = mirrored(row + i - reach, size), mirrored(column + j - reach, size)
                    expected[row, column] += first * second * image[source].astype(np.float64)
    np.testing.assert_allclose(separable(image, taps), expected, atol=1e-5)


def test_downsample_is_the_mean_of_squares():
    image = picture(0, 12)
    expected = [[image[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].mean((0, 1)) for c in range(4)] for r in range(4)]
    np.testing.assert_allclose(downsample(image, 3), expected, atol=1e-6)


def test_tile_repeats_in_both_directions():
    pattern = np.arange(6, dtype=np.float32).reshape(1, 2, 3).repeat(2, 0)
    tiled = tile(pattern, 5)
    assert tiled.shape == (5, 5, 3)
    assert tiled[4, 3].tolist() == [3, 4, 5]
    assert tile(pattern[..., 0], 4).shape == (4, 4, 1)


def test_soften_keeps_flat_areas_and_fades_at_an_edge():
    mask = np.zeros((16, 16), np.float32)
    mask[:, 8:] = 1
    soft = soften(mask, 2)
    assert soft[5, [2, 13]].tolist() == pytest.approx([0, 1])
    assert np.all(np.diff(soft[5, 5:11]) > 0)
    assert soft.sum() == pytest.approx(mask.sum(), rel=1e-3)


@pytest.mark.parametrize("size", [4, 8])
def test_dct_is_orthonormal_and_starts_with_the_mean(size):
    basis = dct_matrix(size)
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-6)
    np.testing.assert_allclose(basis[0], np.full(size, size**-0.5), atol=1e-6)


def test_resize_to_the_same_size_is_the_identity():
    image = picture(1, 10)
    np.testing.assert_allclose(resize(image, 10, Image.Resampling.BILINEAR), image, atol=1e-6)


def test_noise_has_the_deviation_asked_for_and_leaves_its_input():
    image = np.full((200, 200, 3), 0.5, np.float32)
    noisy = add_noise(image, 0.02, np.random.default_rng(0))
    assert noisy.dtype == np.float32
    assert (noisy - 0.5).std() == pytest.approx(0.02, rel=0.02)
    assert np.all(image == 0.5)
