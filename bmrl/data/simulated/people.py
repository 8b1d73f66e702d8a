"""Who is in a picture and how it was taken: the random parameters of a rendered face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bmrl.data.simulated.canvas import Array

__all__ = ["HAIR_STYLES", "Identity", "Photo", "draw_hair_color", "draw_identity", "draw_photo"]

HAIR_STYLES = ("bald", "buzz", "short", "fringe", "bob", "long")

_SKIN = (
    (246, 217, 196),
    (236, 196, 168),
    (222, 175, 140),
    (203, 150, 112),
    (172, 118, 82),
    (136, 90, 62),
    (98, 64, 46),
)
_HAIR = ((30, 24, 22), (52, 36, 28), (88, 58, 38), (128, 88, 52), (176, 132, 80), (122, 58, 34), (158, 152, 148))
_IRIS = ((58, 38, 26), (92, 62, 36), (96, 104, 62), (84, 118, 146), (104, 128, 138))
_CLOTH = ((38, 44, 62), (132, 40, 44), (226, 224, 218), (58, 92, 78), (74, 74, 78), (196, 160, 96), (98, 118, 164))


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What stays with a person. Lengths are in units of half the head's height; colors are RGB ``(3,)`` in [0, 1]."""

    skin: Array
    head_width: float
    jaw_taper: float
    jaw_power: float
    eye_spacing: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    iris: Array
    brow_height: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_length: float
    lip_width: float
    lip_fullness: float
    lip_tint: float
    hair: Array
    hair_style: str
    hair_volume: float
    hairline: float
    parting: float
    freckles: float
    stubble: float
    age: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """What changes from picture to picture. Angles in radians, ``light`` a unit vector (right, down, to the viewer)."""

    shift: tuple[float, float]
    scale: float
    roll: float
    yaw: float
    smile: float
    mouth_open: float
    gaze: float
    light: Array
    ambient: float
    background: tuple[Array, Array]
    cloth: Array
    collar: float
    glasses: str
    hat: bool
    earrings: bool
    necklace: bool
    texture: int


def _pick(rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...], spread: float) -> Array:
    """A color between two neighbors of ``palette``, with a little variation."""
    place = rng.uniform(0, len(palette) - 1)
    low = int(place)
    table = np.asarray(palette, np.float32) / 255
    color = table[low] + (place - low) * (table[low + 1] - table[low])
    varied = color * (1 + spread * rng.standard_normal() + 0.2 * spread * rng.standard_normal(3))
    return np.asarray(np.clip(varied, 0.03, 0.97), np.float32)


def draw_hair_color(rng: np.random.Generator) -> Array:
    """A natural hair color, RGB ``(3,)`` in [0, 1]."""
    return _pick(rng, _HAIR, 0.08)


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random person."""
    return Identity(
        skin=_pick(rng, _SKIN, 0.03),
        head_width=rng.uniform(0.70, 0.80),
        jaw_taper=rng.uniform(0.12, 0.32),
        jaw_power=rng.uniform(1.95, 2.4),
        eye_spacing=rng.uniform(0.29, 0.34),
        eye_width=rng.uniform(0.135, 0.165),
        eye_open=rng.uniform(0.055, 0.085),
        eye_tilt=rng.uniform(-0.04, 0.12),
        iris=_pick(rng, _IRIS, 0.06),
        brow_height=rng.uniform(0.17, 0.23),
        brow_thickness=rng.uniform(0.022, 0.048),
        brow_arch=rng.uniform(0.02, 0.07),
        nose_width=rng.uniform(0.12, 0.18),
        nose_length=rng.uniform(0.38, 0.46),
        lip_width=rng.uniform(0.22, 0.30),
        lip_fullness=rng.uniform(0.05, 0.095),
        lip_tint=rng.uniform(0.15, 0.75),
        hair=draw_hair_color(rng),
        hair_style=str(rng.choice(HAIR_STYLES, p=(0.06, 0.12, 0.26, 0.16, 0.18, 0.22))),
        hair_volume=rng.uniform(0.06, 0.18),
        hairline=rng.uniform(-0.68, -0.52),
        parting=rng.uniform(-0.35, 0.35),
        freckles=max(0.0, rng.uniform(-1.0, 0.8)),
        stubble=max(0.0, rng.uniform(-0.9, 0.5)),
        age=rng.uniform(0.0, 1.0),
    )


def draw_photo(rng: np.random.Generator) -> Photo:
    """A random pose, expression, light, background and outfit."""
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, -0.1), 1.0], np.float32)
    first = _pick(rng, (*_CLOTH, (206, 212, 220), (150, 170, 186)), 0.12)
    return Photo(
        shift=(rng.uniform(-0.05, 0.05), rng.uniform(-0.02, 0.06)),
        scale=rng.uniform(0.64, 0.74),
        roll=rng.uniform(-0.14, 0.14),
        yaw=rng.uniform(-0.45, 0.45),
        smile=rng.uniform(0.0, 1.0),
        mouth_open=max(0.0, rng.uniform(-1.0, 1.0)),
        gaze=rng.uniform(-0.2, 0.2),
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(0.45, 0.7),
        background=(
            first,
            np.clip(
                first * rng.uniform(0.5, 1.3) + rng.uniform(-0.06, 0.06) + rng.uniform(-0.03, 0.03, 3), 0.02, 0.98
            ).astype(np.float32),
        ),
        cloth=_pick(rng, _CLOTH, 0.1),
        collar=rng.uniform(0.0, 0.5),
        glasses=str(rng.choice(("none", "round", "square", "sun"), p=(0.76, 0.10, 0.10, 0.04))),
        hat=bool(rng.uniform() < 0.1),
        earrings=bool(rng.uniform() < 0.2),
        necklace=bool(rng.uniform() < 0.2),
        texture=int(rng.integers(2**31)),
    )
