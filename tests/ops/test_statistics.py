from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d

from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.ops import NUM_STATISTICS, STATISTICS, ResidualStatistics, residual_statistics

FILTERS = {"first": ([-1, 1], 1), "second": ([1, -2, 1], 2), "third": ([-1, 3, -3, 1], 4)}


def planes_of(image: np.ndarray) -> dict[str, np.ndarray]:
    """Y, R - Y and B - Y in whole numbers of Python."""
    red, green, blue = image.astype(int)
    luma = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return {"Y": luma, "R-Y": red - luma, "B-Y": blue - luma}


def filtered(plane: np.ndarray, taps: list[int], axis: int) -> np.ndarray:
    return np.apply_along_axis(lambda line: np.correlate(line, taps, "valid"), axis, plane)


def residual(plane: np.ndarray, kind: str) -> np.ndarray:
    """Along rows; of the square in both directions."""
    if kind == "square":
        return filtered(filtered(plane, [1, -2, 1], 0), [1, -2, 1], 1) / 8
    taps, step = FILTERS[kind]
    return filtered(plane, taps, 1) / step


def orbit(triple: tuple[int, ...]) -> tuple[int, ...]:
    negative = tuple(-value for value in triple)
    return min(triple, triple[::-1], negative, negative[::-1])


ORBITS = list(dict.fromkeys(map(orbit, product(range(-2, 3), repeat=3))))


def counted(plane: np.ndarray, kind: str) -> list[float]:
    found: Counter[tuple[int, ...]] = Counter()
    for turned in (plane, plane.T):
        for row in np.clip(np.rint(residual(turned, kind)), -2, 2).astype(int).tolist():
            found.update(map(orbit, zip(row, row[1:], row[2:], strict=False)))
    return [(found[each] / found.total()) ** 0.5 for each in ORBITS]


def windows(plane: np.ndarray, side: int) -> np.ndarray:
    rows, columns = (range(0, length - side + 1, side) for length in plane.shape)
    return np.array([plane[y : y + side, x : x + side] for y in rows for x in columns], dtype=np.float64)


def block_dct(luma: np.ndarray) -> list[float]:
    sizes = np.abs(scipy.fft.dctn(windows(luma, 8), axes=(1, 2), norm="ortho")).reshape(-1, 64)[:, 1:]
    return [*np.log(sizes.mean(axis=0) + 0.01), *(sizes < 9 / 16).mean(axis=0)]


def rings(luma: np.ndarray) -> list[float]:
    parts = windows(luma, 32)
    parts -= parts.mean(axis=(1, 2), keepdims=True)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(32) + 0.5) / 32)
    taper = np.outer(hann, hann)
    power = (np.abs(np.fft.fft2(parts * taper)) ** 2).mean(axis=0) / (taper**2).sum()
    line = np.fft.fftfreq(32) * 32
    radius = np.rint(np.hypot(line[:, None], line))
    return [float(np.log(power[radius == ring].mean() + 0.01)) for ring in range(1, 23)]


def color(planes: dict[str, np.ndarray]) -> list[float]:
    of_luma, of_red, of_blue = (residual(plane, "square") for plane in planes.values())
    pairs = ((of_luma, of_red), (of_luma, of_blue), (of_red, of_blue))
    correlations = [
        0.0 if 0 in (one.std(), other.std()) else np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs
    ]
    return [np.log(of_red.std() + 0.01), np.log(of_blue.std() + 0.01), *correlations]


def oracle(images: np.ndarray) -> torch.Tensor:
    result = []
    for image in images:
        planes = planes_of(image)
        numbers = [number for kind in (*FILTERS, "square") for number in counted(planes["Y"], kind)]
        for plane, kind in product(("R-Y", "B-Y"), ("second", "square")):
            numbers += counted(planes[plane], kind)
        result.append([*numbers, *block_dct(planes["Y"]), *rings(planes["Y"]), *color(planes)])
    return torch.tensor(np.array(result))


@st.composite
def pictures(draw):
    """Smooth, noisy, clipped and flat ones, whose sides are no multiples of a block."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 2)), 3, draw(st.integers(32, 70)), draw(st.integers(32, 70)))
    values = rng.normal(draw(st.floats(0, 255)), draw(st.sampled_from([0, 0.5, 3, 60])), shape)
    for axis in (2, 3):
        values = correlate1d(values, [0.25, 0.5, 0.25], axis) if draw(st.booleans()) else values
    return values.clip(0, 255).round().astype(np.uint8)


@settings(max_examples=30)
@given(pictures())
def test_equals_definition(images):
    found = residual_statistics(torch.from_numpy(images))
    assert found.dtype == torch.float32
    # A coefficient at exactly 9 / 16 falls to either side: one of at least 16 blocks.
    close = torch.isclose(found.double(), oracle(images), rtol=1e-4, atol=2e-4)
    shares = torch.zeros(NUM_STATISTICS, dtype=torch.bool)
    shares[STATISTICS["block_dct"]][63:] = True
    assert close[:, ~shares].all()
    assert (found.double() - oracle(images))[:, shares].abs().max() <= 1 / 16


def test_the_parts_follow_each_other():
    parts = list(STATISTICS.values())
    assert parts[0].start == 0
    assert parts[-1].stop == NUM_STATISTICS
    assert all(one.stop == other.start for one, other in pairwise(parts))


@given(pictures())
@settings(max_examples=10)
def test_floats_give_what_their_gray_levels_give(images):
    images = torch.from_numpy(images)
    expected = residual_statistics(images)
    for dtype in (torch.float32, torch.float64, torch.float16):  # a half of float16 is less than half a level
        torch.testing.assert_close(residual_statistics(images.to(dtype) / 255), expected, rtol=0, atol=0)


@given(pictures())
@settings(max_examples=10)
def test_a_mirrored_or_turned_image_has_the_same_cooccurrences(images):
    images = torch.from_numpy(images)
    place = STATISTICS["cooccurrences"]
    expected = residual_statistics(images)[:, place]
    for changed in (images.flip(-1), images.flip(-2), images.mT):
        torch.testing.assert_close(residual_statistics(changed.contiguous())[:, place], expected, rtol=0, atol=1e-6)


def test_layouts_and_devices(laid_out):
    wide = laid_out.repeat(1, 1, 4, 4)
    torch.testing.assert_close(residual_statistics(wide), residual_statistics(wide.contiguous()), rtol=0, atol=0)
    assert ResidualStatistics().to("meta")(wide.to("meta")).shape == (len(wide), NUM_STATISTICS)


def test_conversions_of_a_module_change_nothing():
    images = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    expected = residual_statistics(images)
    for converted in (ResidualStatistics().half(), ResidualStatistics().bfloat16(), ResidualStatistics().double()):
        torch.testing.assert_close(converted(images), expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(residual_statistics(images), expected, rtol=0, atol=0)


def test_what_is_not_finite_marks_its_own_row():
    images = torch.rand(3, 3, 32, 32)
    expected = residual_statistics(images)
    images[0, 1, 5, 5] = torch.nan
    found = residual_statistics(images)
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1:], expected[1:], rtol=0, atol=0)


def test_no_gradient_reaches_the_images():
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert not residual_statistics(images).requires_grad


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_compiles_and_traces():
    images = torch.randint(0, 256, (3, 3, 40, 48), dtype=torch.uint8)
    module = ResidualStatistics()
    expected = module(images)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), expected, rtol=0, atol=0)
    traced = torch.jit.trace(module, images[:2], check_trace=False)
    torch.testing.assert_close(traced(images), expected, rtol=0, atol=0)
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    torch.testing.assert_close(program.module()(images[:1]), expected[:1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(1, 3, 31, 40, dtype=torch.uint8), ShapeError, "at least 32 x 32 pixels, got 31 x 40"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), ShapeError, "channels = 3, got 1"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), ShapeError, r"shape \(batch, channels, height, width\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), DTypeError, "uint8 or a floating-point dtype, got torch.int64"),
        (torch.full((1, 3, 32, 32), 200.0), RangeError, r"\[0, 1\], got 200..200"),
    ],
)
def test_refuses(images, error, message):
    with pytest.raises(error, match=rf"^images: expected .*{message}"):
        residual_statistics(images)
    with pytest.raises(error, match=rf"^images: expected .*{message}"):
        ResidualStatistics()(images)
