"""Draw a face: the picture before any camera or generator, and its exact parsing map."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bmrl.data.simulated.canvas import Array, Canvas, coverage, ellipse, smooth_noise, smoothstep
from bmrl.data.simulated.features import paint_brows, paint_eyes, paint_glasses, paint_mouth, paint_nose
from bmrl.data.simulated.hair import paint_hair_behind, paint_hair_front, paint_hat
from bmrl.data.simulated.pose import Pose, ear_distance, head_distance, pose_face, relief

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrl.data.simulated.people import Identity, Photo

__all__ = ["Face", "render"]

_GOLD = np.array([0.85, 0.68, 0.32], np.float32)

_FEATURES = (
    (paint_nose, 0.6, -0.1, 0.7),
    (paint_mouth, 0.6, 0.4, 1.05),
    (paint_eyes, 0.85, -0.35, 0.3),
    (paint_brows, 0.65, -0.45, 0.0),
)


class Face(NamedTuple):
    """A picture ``(size, size, 3)`` float32 in [0, 1] and its parsing map ``(size, size)`` uint8 in 0..18."""

    image: Array
    parsing: NDArray[np.uint8]


def render(identity: Identity, photo: Photo, size: int) -> Face:
    """Return the face of ``identity`` in the situation ``photo``, ``size`` pixels per side.

    The same arguments give the same picture; two people in one ``photo`` have their eyes and mouths in about the
    same places.

    Example:
        >>> from bmrl.data.simulated import draw_identity, draw_photo
        >>> rng = np.random.default_rng(0)
        >>> face = render(draw_identity(rng), draw_photo(rng), 64)
        >>> face.image.shape, face.parsing.shape
        ((64, 64, 3), (64, 64))
    """
    canvas, pose = Canvas(size), pose_face(photo, size)
    rng = np.random.default_rng(photo.texture)
    _paint_background(canvas, photo, rng)
    paint_hair_behind(canvas, identity, photo, pose)
    _paint_body(canvas, identity, photo, pose, rng)
    _paint_head(canvas, identity, photo, pose, rng)
    for paint, half_width, top, bottom in _FEATURES:
        window = pose.around(half_width, top, bottom)
        paint(canvas.window(*window), identity, photo, pose.window(*window))
    paint_hair_front(canvas, identity, photo, pose)
    paint_glasses(canvas, identity, photo, pose)
    paint_hat(canvas, identity, photo, pose)
    return Face(np.clip(canvas.image, 0, 1), canvas.parsing)


def _paint_background(canvas: Canvas, photo: Photo, rng: np.random.Generator) -> None:
    """A gradient with soft blotches, as things far behind the depth of field, and a little vignette."""
    size = canvas.parsing.shape[0]
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    tilt = rng.uniform(-1, 1)
    mix = smoothstep(0, 1, 0.5 + (ramp[:, None] - 0.5) + tilt * (ramp[None] - 0.5) + 0.22 * smooth_noise(rng, size, 4))
    canvas.image[:] = photo.background[0] + mix[..., None] * (photo.background[1] - photo.background[0])
    canvas.shade(1 + 0.05 * smooth_noise(rng, size, 8) + 0.012 * smooth_noise(rng, size, 30))
    canvas.shade(1 - 0.22 * ((ramp[:, None] - 0.5) ** 2 + (ramp[None] - 0.5) ** 2) * 2)


def _paint_body(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose, rng: np.random.Generator) -> None:
    """Neck with the chin's shadow, shoulders in cloth with folds, sometimes a necklace."""
    size, u, v = canvas.parsing.shape[0], pose.u, pose.v
    half = 0.54 * identity.head_width + 0.10 * smoothstep(0.9, 1.6, v)
    round_shade = 0.70 + 0.25 * np.sqrt(np.maximum(1 - (u / half) ** 2, 0)) + 0.15 * photo.light[0] * u
    chin = smoothstep(1.45, 0.85, v - 0.1 * np.abs(u))
    neck = identity.skin * (round_shade * (1 - 0.42 * chin))[..., None]
    canvas.paint(coverage(np.maximum(np.abs(u) - half, 0.4 - v), pose.pixel), neck, "neck")
    if photo.necklace:
        chain = np.abs(v - 1.36 + 0.5 * (u / half) ** 2) - 0.018
        canvas.paint(
            coverage(np.maximum(chain, np.abs(u) - half), pose.pixel),
            _GOLD * (0.8 + 0.3 * np.sin(60 * u))[..., None],
            "neck_l",
        )
    shoulder = 1.20 + 0.20 * np.abs(u) ** 1.5 - 0.10 * (1 - smoothstep(0.4, 0.8, np.abs(u)))
    collar = (0.10 + photo.collar) * np.maximum(1 - np.abs(u) / (0.75 * identity.head_width), 0)
    edge = v - shoulder - collar
    folds = 0.9 + 0.09 * smooth_noise(rng, size, 7) + 0.04 * smooth_noise(rng, size, 40) + 0.1 * photo.light[0] * u
    seam = 1 - 0.25 * np.exp(-(((edge - 0.07) / 0.012) ** 2))
    canvas.paint(coverage(-edge, pose.pixel), photo.cloth * (folds * seam)[..., None], "cloth")


def _paint_head(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose, rng: np.random.Generator) -> None:
    """Ears, then the head: skin with blotches, pores, freckles and stubble, lit by its relief."""
    size, u, v = canvas.parsing.shape[0], pose.front, pose.v
    light = relief(identity, photo, pose)
    for side, name in ((-1, "l_ear"), (1, "r_ear")):
        ear = coverage(ear_distance(identity, pose, side), pose.pixel)
        inner = smoothstep(0.05, -0.05, ear_distance(identity, pose, side, 0.6))
        canvas.paint(ear, identity.skin * (0.86 - 0.28 * inner + 0.15 * side * photo.light[0])[..., None], name)
        if photo.earrings:
            stud = ellipse(pose.u - side * (identity.head_width - 0.01), v - 0.36, 0.035, 0.05)
            canvas.paint(coverage(stud, pose.pixel), _GOLD, "ear_r")
    texture = 1 + 0.015 * smooth_noise(rng, size, 14) + 0.02 * smooth_noise(rng, size, size // 2)
    blush = np.exp(-(((np.abs(u) - 0.40) / 0.17) ** 2) - ((v - 0.33) / 0.15) ** 2)
    skin = identity.skin * (texture * light)[..., None]
    skin = skin + (0.05 * blush)[..., None] * np.array([1.0, -0.2, -0.1], np.float32)
    spots = smoothstep(1.1, 1.9, smooth_noise(rng, size, size // 2)) * np.exp(-(((v - 0.2) / 0.28) ** 2))
    skin = skin * (1 - 0.22 * identity.freckles * spots)[..., None]
    beard = smoothstep(0.45, 0.62, v + 0.25 * np.abs(u)) * (1 + 0.5 * smooth_noise(rng, size, size // 2))
    skin = skin + (0.45 * identity.stubble * np.clip(beard, 0, 1))[..., None] * (identity.hair * 0.7 - skin)
    lines = np.exp(-((np.sin(22 * v + 2 * u * u) - 1) ** 2) / 0.08) * np.exp(
        -(((v + 0.45) / 0.12) ** 2) - (u / 0.3) ** 2
    )
    skin = skin * (1 - 0.08 * max(identity.age - 0.4, 0) * lines)[..., None]
    canvas.paint(coverage(head_distance(identity, pose), pose.pixel), np.clip(skin, 0, 1), "skin")
