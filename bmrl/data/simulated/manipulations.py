"""How a generator makes a picture: all of it synthesized, a region edited, or a face swapped in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bmrl.data.simulated.camera import photograph
from bmrl.data.simulated.canvas import Array
from bmrl.data.simulated.faces import Face, render
from bmrl.data.simulated.filters import soften
from bmrl.data.simulated.people import Identity, Photo, draw_hair_color
from bmrl.parsing import PARSING_CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scene", "Trace", "edit", "swap", "synthesize"]

Trace = Callable[[Array, np.random.Generator], Array]
"""Takes an image ``(size, size, 3)`` float32 in [0, 1] and returns it with a mechanism's trace."""

_INNER = ("skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "nose", "mouth", "u_lip", "l_lip")
_SMALLEST_REGION = 0.12


class Scene(NamedTuple):
    """What to show: a person, a second one for face swaps, the situation, the picture's side in pixels."""

    identity: Identity
    donor: Identity
    photo: Photo
    size: int


def synthesize(scene: Scene, trace: Trace, rng: np.random.Generator) -> Face:
    """Entire face synthesis (and, with the camera as its trace, a photograph): the trace covers everything."""
    face = render(scene.identity, scene.photo, scene.size)
    return Face(trace(face.image, rng), face.parsing)


def edit(scene: Scene, trace: Trace, rng: np.random.Generator) -> Face:
    """Attribute manipulation: hair or face of a photograph is changed, drawn by a generator and put back."""
    face = render(scene.identity, scene.photo, scene.size)
    hair = _region(face.parsing, ("hair",))
    if rng.uniform() < 0.5 and hair.mean() > _SMALLEST_REGION:
        region = hair
        changed = render(dataclasses.replace(scene.identity, hair=draw_hair_color(rng)), scene.photo, scene.size)
    else:
        region = _region(face.parsing, _INNER)
        older = dataclasses.replace(scene.identity, age=rng.uniform(), lip_tint=rng.uniform(0.15, 0.75))
        changed = render(older, dataclasses.replace(scene.photo, smile=rng.uniform()), scene.size)
    return _compose(
        Face(photograph(face.image, rng), face.parsing), Face(trace(changed.image, rng), changed.parsing), region
    )


def swap(scene: Scene, trace: Trace, rng: np.random.Generator) -> Face:
    """Face swap: a second person's inner face, matched in color, drawn by a generator, blended into a photograph."""
    face = render(scene.identity, scene.photo, scene.size)
    donor = render(scene.donor, scene.photo, scene.size)
    region = np.minimum(_region(face.parsing, _INNER), _region(donor.parsing, _INNER))
    matched = _match_colors(donor.image, face.image, region > 0)
    return _compose(Face(photograph(face.image, rng), face.parsing), Face(trace(matched, rng), donor.parsing), region)


def _region(parsing: NDArray[np.uint8], labels: tuple[str, ...]) -> Array:
    return np.isin(parsing, [PARSING_CLASSES.index(label) for label in labels]).astype(np.float32)


def _match_colors(image: Array, reference: Array, where: NDArray[np.bool_]) -> Array:
    """Give ``image`` the mean and spread of each color that ``reference`` has there (Reinhard et al. 2001)."""
    mean, spread = image[where].mean(0), image[where].std(0) + 1e-3
    target_mean, target_spread = reference[where].mean(0), reference[where].std(0)
    matched: Array = np.clip((image - mean) * (target_spread / spread).clip(0.6, 1.6) + target_mean, 0, 1)
    return matched


def _compose(photo: Face, drawn: Face, region: Array) -> Face:
    """Blend ``drawn`` into ``photo`` where ``region`` is 1, fading at its edge; the parsing map follows the pixels."""
    mask = soften(region, max(1, round(region.shape[0] / 64)))
    image = photo.image + mask[..., None] * (drawn.image - photo.image)
    return Face(image, np.where(mask > 0.5, drawn.parsing, photo.parsing))
