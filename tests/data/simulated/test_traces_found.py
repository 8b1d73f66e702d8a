"""Every simulator leaves a trace in the spectrum, and none in what a thumbnail still shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bmrl.data.simulated import SIMULATORS, draw_identity, draw_photo
from bmrl.data.simulated.camera import to_bytes
from bmrl.data.simulated.manipulations import Scene

PEOPLE = 30
FAKES = [simulator.name for simulator in SIMULATORS if simulator.name != "sim_camera"]


def draw(job):
    index, person = job
    rng = np.random.default_rng([11, index, person])
    identity, donor = (draw_identity(np.random.default_rng([11, 99, kind, person])) for kind in (0, 1))
    scene = Scene(identity, donor, draw_photo(rng), 128)
    return to_bytes(SIMULATORS[index].draw(scene, rng).image)


@pytest.fixture(scope="module")
def images():
    """The same people drawn by every simulator in other situations: name -> (PEOPLE, 128, 128, 3) uint8."""
    jobs = [(index, person) for index in range(len(SIMULATORS)) for person in range(PEOPLE)]
    with ThreadPoolExecutor() as pool:
        drawn = np.stack(list(pool.map(draw, jobs))).reshape(len(SIMULATORS), PEOPLE, 128, 128, 3)
    return {simulator.name: drawn[index] for index, simulator in enumerate(SIMULATORS)}


def spectrum(images):
    """Mean log power of 16 x 16 windows of the high-pass residual, for brightness and two color differences."""
    images = images.astype(np.float64) / 255
    planes = np.stack([images.mean(3), images[..., 0] - images[..., 1], images[..., 2] - images[..., 1]], 1)
    neighbors = sum(np.roll(planes, shift, axis) for shift in (-1, 1) for axis in (2, 3))
    windows = (planes - neighbors / 4).reshape(-1, 3, 8, 16, 8, 16).transpose(0, 1, 2, 4, 3, 5)
    taper = np.outer(np.hanning(18)[1:-1], np.hanning(18)[1:-1])
    power = np.abs(np.fft.rfft2(windows * taper)) ** 2
    return np.log(power + 1e-5).mean((2, 3)).reshape(len(images), -1)


def thumbnails(images):
    return images.reshape(-1, 16, 8, 16, 8, 3).mean((2, 4)).reshape(len(images), -1) / 255


@pytest.mark.parametrize("name", FAKES)
def test_linear_probe_on_the_spectrum_finds_the_trace(images, name):
    features = spectrum(np.concatenate([images["sim_camera"], images[name]]))
    labels = np.repeat([0, 1], PEOPLE)
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    assert cross_val_score(probe, features, labels, cv=5).mean() > 0.8  # 4.6 standard deviations above chance


def test_probe_finds_nothing_between_two_halves_of_the_camera(images):
    labels = np.arange(PEOPLE) % 2
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    assert cross_val_score(probe, spectrum(images["sim_camera"]), labels, cv=5).mean() < 0.8


def thumbnail_classifier():
    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200))


def test_thumbnails_do_not_tell_the_generator(images):
    features = np.concatenate([thumbnails(images[simulator.name]) for simulator in SIMULATORS])
    labels = np.repeat(np.arange(len(SIMULATORS)), PEOPLE)
    chance = 1 / len(SIMULATORS)
    deviation = np.sqrt(chance * (1 - chance) / len(labels))
    assert cross_val_score(thumbnail_classifier(), features, labels, cv=5).mean() < chance + 4 * deviation


def test_thumbnails_do_tell_what_is_visible(images):
    features = np.concatenate([thumbnails(images[simulator.name]) for simulator in SIMULATORS])
    skin = np.array([draw_identity(np.random.default_rng([11, 99, 0, person])).skin.mean() for person in range(PEOPLE)])
    labels = np.tile(skin > np.median(skin), len(SIMULATORS))
    assert cross_val_score(thumbnail_classifier(), features, labels, cv=5).mean() > 0.9
