from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.parsing import PARSING_CLASSES
from bmrl.training.augmentation import flip, shift


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return images, torch.randint(0, 19, (size, 8, 8), dtype=torch.uint8, generator=rng)


@given(st.integers(0, 2**31))
def test_flip_mirrors_image_and_map_together(seed):
    images, parsing = batch()
    flipped, maps = flip(images, parsing, rng=torch.Generator().manual_seed(seed))
    for row in range(len(images)):
        mirrored = torch.equal(flipped[row], images[row].flip(-1))
        assert mirrored or torch.equal(flipped[row], images[row])
        for y in range(8):
            for x in range(8):
                name = PARSING_CLASSES[int(parsing[row, y, 7 - x if mirrored else x])]
                if mirrored and name[:2] in ("l_", "r_") and name != "l_lip":
                    name = {"l": "r", "r": "l"}[name[0]] + name[1:]
                assert PARSING_CLASSES[int(maps[row, y, x])] == name


def test_flip_mirrors_about_half():
    images, parsing = batch(400)
    flipped, _ = flip(images, parsing, rng=torch.Generator().manual_seed(0))
    assert 150 < (flipped != images).flatten(1).any(dim=1).sum() < 250


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_shift_moves_pixels_unchanged_and_the_map_with_them(seed, pixels):
    images, _parsing = batch(2)
    coordinates = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8).expand(2, 8, 8)
    moved, where = shift(images, coordinates, pixels=pixels, rng=torch.Generator().manual_seed(seed))
    assert (moved.dtype, where.dtype) == (torch.uint8, torch.uint8)
    source = where.long().flatten(1)
    for channel in range(3):
        assert torch.equal(moved[:, channel].flatten(1), images[:, channel].flatten(1).gather(1, source))


def test_shift_reaches_every_place():
    coordinates = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
    images = coordinates[:, None].expand(1, 3, 8, 8)
    rng = torch.Generator().manual_seed(0)
    centers = {int(shift(images, coordinates, pixels=2, rng=rng)[1][0, 4, 4]) for _ in range(400)}
    assert centers == {8 * y + x for y in range(2, 7) for x in range(2, 7)}


def test_same_rng_same_result_and_arguments_are_left_alone():
    images, parsing = batch()
    before = images.clone(), parsing.clone()
    results = [flip(images, parsing, rng=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(images, before[0])
    assert torch.equal(parsing, before[1])
