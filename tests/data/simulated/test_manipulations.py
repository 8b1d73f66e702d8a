import dataclasses

import numpy as np
import pytest

from bmrl.data.simulated import SIMULATORS, draw_identity, draw_photo, render
from bmrl.data.simulated.camera import photograph
from bmrl.data.simulated.manipulations import Scene, edit, swap, synthesize
from bmrl.parsing import PARSING_CLASSES

INNER = [PARSING_CLASSES.index(name) for name in ("skin", "nose", "u_lip", "l_lip", "mouth", "l_eye", "r_eye")]


def magenta(image, rng):
    """A trace that can't be overlooked."""
    return np.broadcast_to(np.array([1, 0, 1], np.float32), image.shape)


@pytest.fixture(scope="module")
def scene():
    first, second, third = (np.random.default_rng([6, number]) for number in range(3))
    photo = dataclasses.replace(draw_photo(third), glasses="none", hat=False)
    identity = dataclasses.replace(draw_identity(first), hair_style="long")
    return Scene(identity, draw_identity(second), photo, 96)


def test_synthesis_covers_everything(scene):
    face = synthesize(scene, magenta, np.random.default_rng(0))
    assert np.all(face.image == np.array([1, 0, 1], np.float32))
    assert np.array_equal(face.parsing, render(scene.identity, scene.photo, 96).parsing)


@pytest.mark.parametrize("seed", range(6))
def test_edit_covers_hair_or_face_and_leaves_the_photograph(scene, seed):
    face = edit(scene, magenta, np.random.default_rng(seed))
    drawn = np.abs(face.image - np.array([1, 0, 1])).max(2) < 0.01
    original = render(scene.identity, scene.photo, 96).parsing
    hair = original == PARSING_CLASSES.index("hair")
    inside, outside = (hair, np.isin(original, INNER)) if drawn[hair].mean() > 0.3 else (np.isin(original, INNER), hair)
    assert drawn[inside].mean() > 0.6
    assert drawn[outside].mean() < 0.02
    assert drawn[original == 0].mean() < 0.02
    assert (face.parsing == original).mean() > 0.97


def test_edits_of_both_kinds_occur(scene):
    hair = render(scene.identity, scene.photo, 96).parsing == PARSING_CLASSES.index("hair")
    greens = [edit(scene, magenta, np.random.default_rng(seed)).image[hair, 1].mean() for seed in range(12)]
    assert 2 <= sum(green < 0.5 * max(greens) for green in greens) <= 10


def test_swap_covers_the_inner_face_with_the_second_person(scene):
    face = swap(scene, magenta, np.random.default_rng(0))
    first, second = render(scene.identity, scene.photo, 96).parsing, render(scene.donor, scene.photo, 96).parsing
    inner = np.isin(first, INNER) & np.isin(second, INNER)
    drawn = np.abs(face.image - np.array([1, 0, 1])).max(2) < 0.01
    assert drawn[inner].mean() > 0.7
    assert drawn[~np.isin(first, [*INNER, 2, 3])].mean() < 0.02
    assert np.array_equal(face.parsing[drawn], second[drawn])
    assert np.array_equal(face.parsing[first == 0], first[first == 0])


def test_swap_matches_the_color_of_the_photograph(scene):
    pale = dataclasses.replace(scene.identity, skin=np.array([0.9, 0.8, 0.7], np.float32))
    dark = dataclasses.replace(scene.donor, skin=np.array([0.35, 0.22, 0.16], np.float32))
    face = swap(Scene(pale, dark, scene.photo, 96), lambda image, rng: image, np.random.default_rng(0))
    own = render(pale, scene.photo, 96)
    skin = (own.parsing == 1) & (face.parsing == 1)
    assert np.abs(face.image[skin].mean(0) - own.image[skin].mean(0)).max() < 0.05


def test_outside_a_swap_is_the_photograph_itself(scene):
    plain = photograph(render(scene.identity, scene.photo, 96).image, np.random.default_rng(0))
    face = swap(scene, magenta, np.random.default_rng(0))
    background = face.parsing == 0
    assert np.array_equal(face.image[background], plain[background])


def test_table():
    names = [simulator.name for simulator in SIMULATORS]
    assert len(names) == len(set(names)) == 16
    assert all(name.startswith("sim_") for name in names)
    seen = [simulator for simulator in SIMULATORS if simulator.role == "seen"]
    unseen = [simulator for simulator in SIMULATORS if simulator.role == "unseen"]
    assert (len(seen), len(unseen)) == (10, 6)
    assert [simulator.name for simulator in SIMULATORS if simulator.manipulation == "none"] == ["sim_camera"]
    assert len({simulator.trace for simulator in SIMULATORS}) == 16
    families = {(simulator.manipulation, simulator.architecture) for simulator in seen}
    assert {(simulator.manipulation, simulator.architecture) for simulator in unseen} < families
