"""Camera, decoders and denoisers: each leaves the pattern that its source describes, and nothing that is visible."""

import numpy as np
import pytest

from bmrl.data.simulated import SIMULATORS, decoders, denoisers, draw_identity, draw_photo, render
from bmrl.data.simulated.camera import _demosaic, photograph, to_bytes
from bmrl.data.simulated.filters import downsample

TRACES = {simulator.name: simulator.trace for simulator in SIMULATORS}
GRAY = np.full((96, 96, 3), 0.5, np.float32)


@pytest.fixture(scope="module")
def face():
    rng = np.random.default_rng(4)
    return render(draw_identity(rng), draw_photo(rng), 96).image


def strongest_frequencies(image):
    """The frequencies (vertical, horizontal), in cycles per pixel, of the strongest peaks of the first color."""
    plane = image[..., 0].astype(np.float64)
    power = np.abs(np.fft.fft2(plane - plane.mean())) ** 2
    rows, columns = np.nonzero(power > 0.5 * power.max())
    frequencies = np.abs(np.fft.fftfreq(len(plane)))
    return {(round(frequencies[r], 3), round(frequencies[c], 3)) for r, c in zip(rows, columns, strict=True)}


@pytest.mark.parametrize("name", TRACES)
def test_no_mechanism_shows_in_small_pictures(face, name):
    drawn = TRACES[name](face, np.random.default_rng(0))
    assert drawn.shape == face.shape
    assert drawn.dtype == np.float32
    assert np.abs(drawn.mean((0, 1)) - face.mean((0, 1))).max() < 0.004
    assert np.abs(downsample(drawn, 16) - downsample(face, 16)).mean() < 0.012
    assert not np.array_equal(to_bytes(drawn), to_bytes(face))


@pytest.mark.parametrize("name", TRACES)
def test_mechanisms_depend_on_their_random_numbers_alone(face, name):
    before = face.copy()
    first, second = (TRACES[name](face, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(face, before)


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (decoders.transposed, {(0.5, 0.0), (0.0, 0.5)}),
        (decoders.pixel_shuffle, {(0.5, 0.5)}),
        (decoders.pixel_shuffle_3, {(0.333, 0.333)}),
        (decoders.pixel_shuffle_4, {(0.0, 0.25)}),
        (denoisers.latent_grid, {(0.125, 0.0), (0.0, 0.125)}),
        (denoisers.latent_grid_4, {(0.25, 0.0), (0.0, 0.25)}),
    ],
)
def test_periods_on_a_flat_picture(trace, expected):
    mean = np.mean([trace(GRAY, np.random.default_rng(seed)) for seed in range(16)], axis=0)
    assert strongest_frequencies(mean) == expected


def test_wide_transposed_convolution_has_period_four():
    mean = np.mean([decoders.transposed_4(GRAY, np.random.default_rng(seed)) for seed in range(40)], axis=0)
    assert strongest_frequencies(mean) <= {(0.25, 0.0), (0.0, 0.25), (0.5, 0.0), (0.0, 0.5)}


def test_codebook_draws_each_square_from_few_slopes(face):
    squares = decoders.codebook(face, np.random.default_rng(0)).reshape(48, 2, 48, 2, 3)
    differences = (squares[:, 0, :, 0] - squares[:, 1, :, 1]).astype(np.float64)  # inside a square, along its diagonal
    assert len(np.unique(differences.round(4))) < 30
    original = face.reshape(48, 2, 48, 2, 3)
    assert len(np.unique((original[:, 0, :, 0] - original[:, 1, :, 1]).astype(np.float64).round(4))) > 300


def band_power(image, low, high):
    """Power of an image's brightness between two radial frequencies (cycles per pixel)."""
    plane = image.mean(2).astype(np.float64)
    radius = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96)[None])
    return (np.abs(np.fft.fft2(plane)) ** 2)[(radius > low) & (radius < high)].mean()


def test_denoising_lacks_high_frequencies():
    rng = np.random.default_rng(0)
    assert band_power(denoisers.denoised(GRAY, rng), 0.3, 0.5) < 0.4 * band_power(photograph(GRAY, rng), 0.3, 0.5)


def test_restorer_sharpens(face):
    rng = np.random.default_rng(0)
    assert band_power(decoders.enhanced(face, rng), 0.3, 0.5) > 1.5 * band_power(face, 0.3, 0.5)


def test_demosaic_equals_definition():
    rng = np.random.default_rng(1)
    for row, column in ((0, 1), (1, 0)):
        sites = np.zeros((8, 8), np.float32)
        sites[row::2, column::2] = 1
        samples = rng.random((8, 8), dtype=np.float32) * sites
        filled = _demosaic(samples, sites)
        for r in range(1, 7):
            for c in range(1, 7):
                near = [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                measured = [samples[place] for place in near if sites[place]]  # by symmetry they share one weight
                expected = samples[r, c] if sites[r, c] else np.mean(measured)
                assert filled[r, c] == pytest.approx(expected, abs=1e-6)


def test_camera_noise_is_correlated_by_the_mosaic():
    photos = [photograph(GRAY, np.random.default_rng(seed)) for seed in range(12)]
    red = np.stack([photo[..., 0] - photo[..., 0].mean() for photo in photos])
    measured, interpolated = red[:, 0::2, 1::2].var(), red[:, 1::2, 0::2].var()
    assert measured > 2 * interpolated


def test_to_bytes_rounds_and_clips():
    assert to_bytes(np.array([-0.2, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.3])).tolist() == [0, 0, 0, 1, 255, 255]
