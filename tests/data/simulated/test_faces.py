import dataclasses

import numpy as np
import pytest

from bmrl.data.simulated import draw_identity, draw_photo, render
from bmrl.parsing import PARSING_CLASSES

INDEX = {name: number for number, name in enumerate(PARSING_CLASSES)}


@pytest.fixture(scope="module")
def people():
    rngs = [np.random.default_rng([3, number]) for number in range(60)]
    return [(draw_identity(rng), draw_photo(rng)) for rng in rngs]


@pytest.fixture(scope="module")
def faces(people):
    return [render(identity, photo, 96) for identity, photo in people]


def center(face, name):
    return np.argwhere(face.parsing == INDEX[name]).mean(0)


def test_types_and_ranges(faces):
    for face in faces:
        assert face.image.shape == (96, 96, 3)
        assert face.image.dtype == np.float32
        assert face.image.min() >= 0
        assert face.image.max() <= 1
        assert face.parsing.shape == (96, 96)
        assert face.parsing.dtype == np.uint8


def test_every_class_occurs(faces):
    found = np.unique(np.concatenate([np.unique(face.parsing) for face in faces]))
    assert found.tolist() == list(range(19))


def test_same_arguments_same_face(people):
    first, second = render(*people[0], 64), render(*people[0], 64)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.parsing, second.parsing)
    assert not np.array_equal(first.image, render(people[1][0], people[0][1], 64).image)


def test_anatomy(people, faces):
    for (_, photo), face in zip(people, faces, strict=True):
        assert (face.parsing == INDEX["skin"]).mean() > 0.04
        assert center(face, "u_lip")[0] < center(face, "l_lip")[0]
        assert center(face, "nose")[0] < center(face, "l_lip")[0]
        if photo.glasses != "sun":
            left, right = center(face, "l_eye"), center(face, "r_eye")
            assert left[1] < center(face, "nose")[1] < right[1]
            assert max(left[0], right[0]) < center(face, "l_lip")[0]


def test_map_of_the_hair_is_exactly_where_its_color_shows(people):
    checked = 0
    for identity, photo in people:
        if identity.hair_style in ("bald", "buzz") or photo.glasses != "none" or identity.stubble or photo.hat:
            continue
        dark, light = (
            render(dataclasses.replace(identity, hair=np.full(3, level, np.float32)), photo, 96) for level in (0.1, 0.9)
        )
        assert np.array_equal(dark.parsing, light.parsing)
        change = (light.image - dark.image).mean(2)
        hair = dark.parsing == INDEX["hair"]
        brows = np.isin(dark.parsing, [INDEX["l_brow"], INDEX["r_brow"]])
        edge = np.zeros_like(hair)  # some pixels around hair and brows, where antialiasing mixes them in
        for mask in (hair, brows):
            for shift in range(-3, 4):
                for other in range(-3, 4):
                    edge |= np.roll(mask, (shift, other), (0, 1))
        assert change[hair].min() > 0.05
        assert change[~edge].max() < 0.01
        checked += 1
    assert checked >= 10


def test_size_changes_only_the_sampling(people):
    large, small = render(*people[0], 192), render(*people[0], 96)
    agree = (large.parsing[::2, ::2] == small.parsing).mean()
    assert agree > 0.95


def test_light_from_one_side_brightens_that_side(people):
    identity, photo = people[0]
    photo = dataclasses.replace(photo, yaw=0.0, roll=0.0, shift=(0.0, 0.0))
    left, right = (
        render(identity, dataclasses.replace(photo, light=np.array([side, -0.2, 0.7], np.float32)), 96)
        for side in (-0.7, 0.7)
    )
    skin = left.parsing == INDEX["skin"]
    columns = np.arange(96)[None] + np.zeros((96, 1))
    brighter = (left.image - right.image).mean(2)
    assert brighter[skin & (columns < 40)].mean() > 0.05
    assert brighter[skin & (columns > 56)].mean() < -0.05
