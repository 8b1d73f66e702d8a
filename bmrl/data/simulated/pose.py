"""Where a face is in its picture: face coordinates for every pixel, and the shape and relief of the head in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bmrl.data.simulated.canvas import Array, ellipse, smoothstep

if TYPE_CHECKING:
    from bmrl.data.simulated.people import Identity, Photo

__all__ = ["Pose", "head_distance", "pose_face", "relief"]


@dataclass(frozen=True, slots=True)
class Pose:
    """Face coordinates ``(size, size)``: the skull's top is at v = -1, the chin at v = 1, the eyes at v = 0.

    Attributes:
        u: to the right, 0 in the head's middle.
        v: downwards.
        front: to the right, 0 on the face's middle line, which a turned head moves sideways.
        pixel: the side of a pixel in face coordinates.
    """

    u: Array
    v: Array
    front: Array
    pixel: float

    def around(self, half_width: float, top: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns of the smallest window with all of -half_width < front < half_width, top < v < bottom."""
        wanted = (np.abs(self.front) < half_width) & (self.v > top) & (self.v < bottom)
        rows, columns = np.flatnonzero(wanted.any(1)), np.flatnonzero(wanted.any(0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    def window(self, rows: slice, columns: slice) -> Pose:
        """Return the coordinates of a part of the picture."""
        return Pose(self.u[rows, columns], self.v[rows, columns], self.front[rows, columns], self.pixel)


def pose_face(photo: Photo, size: int) -> Pose:
    """Return the face coordinates of every pixel center of a ``size`` x ``size`` picture."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis - photo.shift[0], axis - photo.shift[1])
    cos, sin = float(np.cos(photo.roll)), float(np.sin(photo.roll))
    u, v = (x * cos + y * sin) / photo.scale, (y * cos - x * sin) / photo.scale
    return Pose(u, v, u - 0.3 * photo.yaw, 2 / size / photo.scale)


def head_distance(identity: Identity, pose: Pose) -> Array:
    """Signed distance, to first order, from the outline of skull and jaw."""
    narrow = 1 - identity.jaw_taper * np.clip(pose.v, 0, 1) ** 2
    power = np.where(pose.v > 0, np.float32(identity.jaw_power), np.float32(2.0))
    x, y = np.abs(pose.u) / (identity.head_width * narrow), np.abs(pose.v)
    norm: Array = (x**power + y**power + 1e-9) ** (1 / power)
    return (norm - 1) * identity.head_width


def _bump(x: Array, y: Array, width: float, height: float) -> Array:
    bump: Array = np.exp(-((x / width) ** 2) - (y / height) ** 2)
    return bump


def relief(identity: Identity, photo: Photo, pose: Pose) -> Array:
    """Light on the face, about 1: Lambert's law on an ellipsoid with nose, brows, sockets, cheeks and lips."""
    u, v = pose.front, pose.v
    side = np.abs(u)
    inside = 1 - (pose.u / (identity.head_width * 1.06)) ** 2 - (v / 1.08) ** 2
    height = 0.62 * np.sqrt(np.maximum(inside, 0) + 0.05)
    mouth = identity.nose_length + 0.24
    nose_u = u - 0.06 * photo.yaw * smoothstep(-0.1, identity.nose_length, v)
    ridge = smoothstep(-0.2, 0.12, v) * smoothstep(identity.nose_length + 0.07, identity.nose_length - 0.03, v)
    across = np.exp(-((nose_u / (0.55 * identity.nose_width)) ** 2))
    height += (0.05 + 0.13 * smoothstep(0, identity.nose_length, v)) * ridge * across
    height += 0.05 * _bump(side - 0.7 * identity.nose_width, v - identity.nose_length, 0.06, 0.07)
    height -= 0.07 * _bump(side - identity.eye_spacing * 0.9, v, 0.17, 0.11)
    height += 0.03 * _bump(side - identity.eye_spacing, v, 0.11, 0.06)
    height += 0.035 * _bump(side - 0.28, v + identity.brow_height, 0.22, 0.08)
    height += (0.04 + 0.03 * photo.smile) * _bump(side - 0.40, v - 0.32, 0.16, 0.14)
    fold = side - 0.24 - 0.35 * (v - identity.nose_length)
    depth = 0.004 + 0.010 * photo.smile + 0.006 * identity.age
    height -= depth * _bump(fold, v - identity.nose_length - 0.12, 0.04, 0.14)
    height += 0.03 * _bump(u, v - mouth, 0.24, 0.10)
    height -= 0.03 * _bump(u, v - mouth - 0.15, 0.16, 0.04)
    height += 0.04 * _bump(u, v - 0.92, 0.16, 0.10)
    dy, dx = np.gradient(height, pose.pixel)
    light = photo.light
    lambert: Array = (light[2] - light[0] * dx - light[1] * dy) / np.sqrt(1 + dx * dx + dy * dy)
    return photo.ambient + (1.12 - photo.ambient) * np.maximum(lambert, 0)


def ear_distance(identity: Identity, pose: Pose, side: int, shrink: float = 1.0) -> Array:
    """Signed distance from the ear on the viewer's left (-1) or right (1)."""
    lean = pose.u - side * (identity.head_width + 0.035) + side * 0.12 * (pose.v - 0.12)
    return ellipse(lean, pose.v - 0.12, 0.10 * shrink, 0.21 * shrink)
