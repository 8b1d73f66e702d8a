"""Hair behind and in front of the head, and hats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bmrl.data.simulated.canvas import Array, Canvas, coverage, ellipse, smoothstep
from bmrl.data.simulated.pose import Pose, head_distance

if TYPE_CHECKING:
    from bmrl.data.simulated.people import Identity, Photo

__all__ = ["paint_hair_behind", "paint_hair_front", "paint_hat"]

_LENGTH = {"bald": -0.6, "buzz": -0.1, "short": 0.0, "fringe": 0.25, "bob": 0.75, "long": 1.6}


def _strands(identity: Identity, photo: Photo, pose: Pose) -> Array:
    """Color of the hair ``(size, size, 3)``: strands from the parting, darker below, with a band of sheen."""
    rng = np.random.default_rng([photo.texture, 7])
    x, y = pose.u - 0.5 * identity.parting, pose.v + 0.95
    angle = np.arctan2(x, y + 0.25) / np.pi * smoothstep(-0.2, 0.7, y) + 0.4 * x
    wave = 0.02 * np.sin(7 * y + rng.uniform(0, 6)) * rng.uniform(0, 1)
    value = np.zeros_like(x)
    for knots, weight in ((18, 0.10), (45, 0.12), (110, 0.10)):
        table = rng.standard_normal(knots + 1)
        value += weight * np.interp((angle + wave + 1.2) / 2.4 * knots, np.arange(knots + 1), table).astype(np.float32)
    sheen = np.exp(-(((np.hypot(pose.u - 0.3 * photo.light[0], pose.v + 0.1) - 0.78) / 0.13) ** 2)) * (pose.v < 0.2)
    tone = 0.92 + value + 0.35 * sheen - 0.22 * smoothstep(0.0, 1.4, pose.v) + 0.12 * photo.light[0] * pose.u
    color: Array = np.clip(identity.hair * np.maximum(tone, 0.25)[..., None] + 0.03 * sheen[..., None], 0, 1)
    return color


def _outline(identity: Identity, pose: Pose) -> Array:
    """Signed distance from all of the hair's silhouette, as if nothing hid it."""
    length, volume = _LENGTH[identity.hair_style], identity.hair_volume
    if identity.hair_style in ("bald", "buzz"):
        volume = 0.015
    top = ellipse(pose.u, pose.v + 0.06, identity.head_width + volume, 1.0 + volume)
    cap = np.maximum(top, pose.v - length + 0.05 * np.cos(9 * pose.u))
    if length < 0.5:
        return cap
    width = (identity.head_width + volume) * (
        1 + 0.12 * smoothstep(0.0, 1.0, pose.v) - 0.10 * smoothstep(0.6, 1.0, pose.v / length)
    )
    end = pose.v - length + 0.12 * (pose.u / width) ** 2 + 0.02 * np.cos(21 * pose.u)
    fall = np.maximum(np.maximum(np.abs(pose.u) - width, end), -0.06 - pose.v)
    outline: Array = np.minimum(np.maximum(top, pose.v - 0.1), fall)
    return outline


def paint_hair_behind(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint what lies behind head, neck and shoulders."""
    if _LENGTH[identity.hair_style] > 0.5:
        canvas.paint(
            coverage(_outline(identity, pose), 1.5 * pose.pixel), _strands(identity, photo, pose) * 0.72, "hair"
        )


def paint_hair_front(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint what lies over the forehead and the sides of the face."""
    style = identity.hair_style
    if style == "bald":
        return
    x = pose.front - identity.parting
    across = x / identity.head_width
    line = identity.hairline + {"fringe": 0.24, "buzz": -0.02}.get(style, 0.0) + 0.30 * across**2
    if style in ("bob", "long"):
        line = line + 0.10 * np.abs(across) + 0.5 * np.maximum(np.abs(pose.u) / identity.head_width - 0.62, 0)
    if style == "fringe":
        line = line - 0.16 * across**2 + 0.02 * np.sin(26 * across + photo.texture % 7)
    sides = smoothstep(0.82, 1.0, np.abs(pose.u) / identity.head_width)
    below = pose.v - line - (2.5 if style in ("bob", "long") else 0.45) * sides
    shape = np.maximum(_outline(identity, pose), below)
    shadow = smoothstep(0.14, 0.0, below) * (below > 0) * (head_distance(identity, pose) < 0)
    canvas.shade(1 - (0.12 if style == "buzz" else 0.30) * shadow)
    soft = 9.0 if style == "buzz" else 3.0
    strength = 0.75 if style == "buzz" else 1.0
    canvas.paint(strength * coverage(shape, soft * pose.pixel), _strands(identity, photo, pose))
    canvas.mark(shape < 0, "hair")


def paint_hat(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint a knitted hat with a turned-up brim."""
    if not photo.hat:
        return
    bulge = identity.head_width + max(0.06, identity.hair_volume + 0.02)
    brim = -0.42 - 0.10 * (1 - (pose.u / bulge) ** 2)
    crown = np.maximum(ellipse(pose.u, pose.v + 0.25, bulge, 1.04), pose.v - brim)
    round_shade = 0.75 + 0.3 * np.sqrt(np.maximum(1 - (pose.u / bulge) ** 2, 0)) + 0.2 * photo.light[0] * pose.u
    ribs = 1 + 0.06 * np.sin(38 * np.arcsin(np.clip(pose.u / bulge, -1, 1)))
    color = np.clip(photo.cloth[::-1] * 0.9 + 0.05, 0, 1)
    head = head_distance(identity, pose) < 0
    canvas.shade(1 - 0.3 * smoothstep(0.14, 0, pose.v - brim) * (pose.v > brim) * head)
    canvas.paint(coverage(crown, pose.pixel), color * (round_shade * ribs)[..., None], "hat")
    cuff = np.maximum(np.abs(pose.v - brim + 0.10) - 0.13, np.abs(pose.u) - bulge * 0.97)
    canvas.paint(coverage(cuff, pose.pixel), np.clip(color * (round_shade * (2 - ribs) * 0.9)[..., None], 0, 1), "hat")
