import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmrl.data.simulated.canvas import Canvas, coverage, ellipse, smooth_noise, smoothstep
from bmrl.parsing import PARSING_CLASSES


def grid(size):
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    return np.meshgrid(axis, axis)


@given(width=st.floats(0.2, 0.9), height=st.floats(0.2, 0.9), size=st.sampled_from([48, 64, 96]))
def test_ellipse_covers_its_area_with_soft_edges_and_an_exact_map(width, height, size):
    x, y = grid(size)
    cover = coverage(ellipse(x, y, width, height), 2 / size)
    canvas = Canvas(size)
    canvas.paint(cover, np.ones(3, np.float32), "skin")
    assert cover.sum() * (2 / size) ** 2 == pytest.approx(np.pi * width * height, rel=0.02)
    level = (x.astype(np.float64) / width) ** 2 + (y.astype(np.float64) / height) ** 2
    clear = np.abs(level - 1) > 1e-3
    assert np.array_equal((canvas.parsing == 1)[clear], (level < 1)[clear])
    assert ((cover > 0) & (cover < 1)).any()
    assert np.array_equal(canvas.image[..., 0], cover)


def test_classes_are_the_nineteen_of_the_specification():
    assert len(PARSING_CLASSES) == len(set(PARSING_CLASSES)) == 19
    assert [PARSING_CLASSES[index] for index in (0, 1, 6, 10, 12, 14, 17, 18)] == [
        *("background", "skin", "eye_g", "nose", "u_lip", "neck", "hair", "hat")
    ]


def test_window_shares_the_pixels():
    canvas = Canvas(64)
    canvas.window(slice(8, 10), slice(3, 6)).paint(np.ones((2, 3), np.float32), np.ones(3, np.float32), "hair")
    assert np.argwhere(canvas.parsing == 17).tolist() == [[8, 3], [8, 4], [8, 5], [9, 3], [9, 4], [9, 5]]
    assert canvas.image.sum() == 18


def test_paint_without_label_leaves_the_map():
    canvas = Canvas(64)
    canvas.paint(np.ones((64, 64), np.float32), np.ones(3, np.float32))
    assert canvas.image.min() == 1
    assert canvas.parsing.max() == 0


def test_smoothstep_rises_and_falls():
    x = np.array([-1, 0, 0.5, 1, 2], np.float32)
    assert smoothstep(0, 1, x).tolist() == [0, 0, 0.5, 1, 1]
    assert smoothstep(1, 0, x).tolist() == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize("cells", [4, 14, 64])
def test_smooth_noise_has_unit_variance_and_no_mean(cells):
    noise = np.stack([smooth_noise(np.random.default_rng(seed), 128, cells) for seed in range(40)])
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.2)
