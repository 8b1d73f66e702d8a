"""Eyes, brows, nose, mouth and glasses, painted on a canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bmrl.data.simulated.canvas import Array, Canvas, coverage, ellipse, smoothstep

if TYPE_CHECKING:
    from bmrl.data.simulated.people import Identity, Photo
    from bmrl.data.simulated.pose import Pose

__all__ = ["paint_brows", "paint_eyes", "paint_glasses", "paint_mouth", "paint_nose"]

_DARK = np.array([0.07, 0.05, 0.05], np.float32)
_WHITE = np.array([0.93, 0.91, 0.89], np.float32)
_SIDES = ((-1, "l_"), (1, "r_"))


def _tinted(color: Array, factor: float, tint: tuple[float, float, float] = (0, 0, 0)) -> Array:
    tinted: Array = np.clip(color * factor + np.asarray(tint, np.float32), 0, 1)
    return tinted


def paint_eyes(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint sockets, eyeballs with iris, pupil and highlight, lids and lashes."""
    px, width = pose.pixel, identity.eye_width
    squint = 1 - 0.25 * max(photo.smile, 0)
    for side, name in _SIDES:
        x = pose.front - side * identity.eye_spacing
        y = pose.v + side * identity.eye_tilt * x
        bow = np.maximum(1 - (x / width) ** 2, 0)
        reach = np.abs(x) - width
        upper = -identity.eye_open * squint * bow**0.7
        lower = 0.6 * identity.eye_open * squint * bow
        canvas.shade(1 - 0.22 * np.exp(-((x / (1.35 * width)) ** 2) - ((y + 0.03) / 0.11) ** 2))
        crease = np.abs(y - 1.15 * upper + 0.035) - 0.008
        canvas.paint(0.45 * coverage(np.maximum(crease, reach), 1.5 * px), _tinted(identity.skin, 0.45))
        bag = np.abs(y - lower - 0.06 - 0.03 * bow) - 0.006
        canvas.paint(0.3 * identity.age * coverage(np.maximum(bag, reach + 0.03), 2 * px), _tinted(identity.skin, 0.6))
        eye = coverage(np.maximum(np.maximum(upper - y, y - lower), reach), px)
        canvas.paint(eye, _WHITE * (0.72 + 0.28 * smoothstep(0, 0.09, y - upper))[..., None], f"{name}eye")
        radius = 0.068
        ball_x, ball_y = x - photo.gaze * 0.25 - 0.02 * photo.yaw, y + 0.012
        distance = np.hypot(ball_x, ball_y)
        rim = 0.55 + 0.65 * smoothstep(radius, 0.4 * radius, distance)
        canvas.paint(
            eye * coverage(distance - radius, px),
            identity.iris * (rim * smoothstep(-0.09, 0.05, ball_y + 0.03))[..., None] * 1.3,
        )
        canvas.paint(eye * coverage(distance - 0.030, px), _DARK)
        gleam = np.hypot(ball_x - 0.05 * photo.light[0] + 0.01, ball_y - 0.035 * photo.light[1] + 0.012) - 0.014
        canvas.paint(0.9 * eye * coverage(gleam, px), _WHITE)
        lash = np.abs(y - upper + 0.008) - (0.010 + 0.008 * (side * x / width > 0.2))
        canvas.paint(0.85 * coverage(np.maximum(lash, reach - 0.01), px), _DARK)
        canvas.paint(0.3 * coverage(np.maximum(np.abs(y - lower) - 0.004, reach), px), _tinted(identity.skin, 0.4))


def paint_brows(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint both brows: thick near the nose, thin at the temple."""
    color = _tinted(identity.hair, 0.75)
    for side, name in _SIDES:
        x = side * pose.front - identity.eye_spacing
        t = np.clip((x + 0.20) / 0.42, 0, 1)
        middle = -identity.brow_height - identity.brow_arch * np.sin(np.pi * t**1.4) + 0.03 * t
        thickness = identity.brow_thickness * (1 - 0.75 * t**1.5) + 0.004
        brow = np.maximum(np.abs(pose.v - middle) - thickness, np.abs(x - 0.01) - 0.21)
        canvas.paint(0.85 * coverage(brow, 2.0 * pose.pixel), color)
        canvas.mark(brow < 0, f"{name}brow")


def paint_nose(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint the nostrils and the nose's shadow; its body is relief. The parsing map gets the whole nose."""
    length, width = identity.nose_length, identity.nose_width
    x = pose.front - 0.06 * photo.yaw * smoothstep(-0.1, length, pose.v)
    y = pose.v - length
    canvas.shade(1 - 0.25 * np.exp(-((x / (1.1 * width)) ** 2) - ((y - 0.065) / 0.035) ** 2))
    spread = np.clip(pose.v / length, 0, 1)
    half = width * (0.42 + 0.58 * spread**2.2)
    body = np.maximum(np.abs(x) - half, np.maximum(0.02 - pose.v, y - 0.065 + 0.25 * np.abs(x)))
    canvas.paint(0.16 * coverage(body, 0.12), _tinted(identity.skin, 0.92, (0.06, 0, 0)), None)
    canvas.mark(body < 0, "nose")
    for side in (-1, 1):
        wing = np.abs(ellipse(x - side * 0.72 * width, y - 0.005, 0.30 * width, 0.055)) - 0.006
        outer = np.maximum(wing, 0.78 * width - side * x)
        canvas.paint(0.40 * coverage(outer, 2.5 * pose.pixel), _tinted(identity.skin, 0.5))
        nostril = ellipse(
            x - side * 0.42 * width, y - 0.035 + 0.1 * side * (x - side * 0.42 * width), 0.24 * width, 0.018
        )
        canvas.paint(0.75 * coverage(nostril, 1.5 * pose.pixel), _tinted(identity.skin, 0.22))
    tip = np.exp(-(((x - 0.03 * photo.light[0]) / 0.05) ** 2) - ((y + 0.05 - 0.02 * photo.light[1]) / 0.05) ** 2)
    canvas.shade(1 + 0.10 * tip)


def paint_mouth(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint lips, and between them the mouth with teeth when it is open."""
    px, width = pose.pixel, identity.lip_width * (1 + 0.18 * photo.smile)
    x = pose.front - 0.02 * photo.yaw
    t = np.clip(x / width, -1, 1)
    bow = 1 - t * t
    y = pose.v - identity.nose_length - 0.245 + 0.06 * photo.smile * t * t
    gap = 0.075 * photo.mouth_open * bow
    reach = np.abs(x) - width
    upper = -gap - identity.lip_fullness * 0.75 * (bow**0.8) * (1 - 0.22 * np.exp(-((t / 0.16) ** 2)))
    lower = gap + identity.lip_fullness * 1.05 * bow**0.75
    red = np.array([0.62, 0.22, 0.24], np.float32)
    lips = identity.skin * (1 - 0.62 * identity.lip_tint) + 0.62 * identity.lip_tint * red * (
        0.45 + 0.6 * float(identity.skin.mean())
    )
    lips = _tinted(lips, 0.9, (0.02, -0.03, -0.02))
    lit = 1 + 0.18 * np.exp(-(((y - 0.55 * lower) / 0.025) ** 2) - (x / 0.10) ** 2)
    canvas.paint(coverage(np.maximum(np.maximum(upper - y, y), reach), px), lips * 0.86, "u_lip")
    canvas.paint(coverage(np.maximum(np.maximum(-y, y - lower), reach), px), lips * lit[..., None], "l_lip")
    inside = coverage(np.maximum(np.abs(y) - gap, reach + 0.02), px)
    teeth = smoothstep(0.03, 0.0, y - 0.15 * gap) * smoothstep(1.0, 0.75, np.abs(t))
    canvas.paint(
        inside,
        np.array([0.28, 0.08, 0.09], np.float32) + (teeth * 0.62)[..., None] * np.array([1, 1.25, 1.15], np.float32),
        "mouth",
    )
    line = np.abs(np.abs(y) - gap) - 0.005
    canvas.paint(0.7 * coverage(np.maximum(line, reach - 0.01), 1.5 * px), _tinted(lips, 0.4))
    canvas.shade(1 - 0.16 * np.exp(-((x / (0.8 * width)) ** 2) - ((y - lower - 0.035) / 0.03) ** 2))


def paint_glasses(canvas: Canvas, identity: Identity, photo: Photo, pose: Pose) -> None:
    """Paint spectacles or sunglasses; through clear lenses the eyes stay eyes in the parsing map."""
    if photo.glasses == "none":
        return
    x, y = np.abs(pose.front) - identity.eye_spacing - 0.01, pose.v - 0.02
    square = photo.glasses == "square"
    power = 5.0 if square else 2.4
    wide, high = (0.23, 0.155) if square else (0.215, 0.185)
    lens = ((np.abs(x) / wide) ** power + (np.abs(y) / high) ** power + 1e-9) ** (1 / power)
    lens = (lens - 1) * high
    frame = np.abs(lens) - 0.014
    bridge = np.maximum(np.abs(y + 0.03) - 0.012, np.abs(pose.front) - identity.eye_spacing + wide - 0.01)
    temple = np.maximum(np.abs(y + 0.04) - 0.014, np.maximum(wide - x, np.abs(pose.u) - identity.head_width))
    color = identity.hair * 0.4 + 0.05
    if photo.glasses == "sun":
        canvas.paint(0.93 * coverage(lens, pose.pixel), _DARK * 1.5, "eye_g")
    else:
        sheen = smoothstep(0.02, 0.10, np.abs(x + 0.6 * y)) * -1 + 1
        canvas.paint(0.12 * sheen * coverage(lens, pose.pixel), _WHITE)
    shape = np.minimum(np.minimum(frame, bridge), temple)
    canvas.paint(coverage(shape, pose.pixel), color, "eye_g")
