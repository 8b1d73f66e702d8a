"""The face-parsing classes: their names, colors and mirror images."""

from __future__ import annotations

__all__ = ["MIRRORED_CLASSES", "PARSING_CLASSES", "PARSING_COLORS"]

PARSING_CLASSES = (
    *("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r"),
    *("nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat"),
)
"""The 19 face-parsing classes by index: those of CelebAMask-HQ in BiSeNet's order, which is not that data set's own."""

PARSING_COLORS = (
    *((0, 0, 0), (0, 85, 255), (0, 170, 255), (85, 0, 255), (170, 0, 255)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (85, 255, 0), (170, 255, 0)),
    *((255, 0, 0), (255, 0, 85), (255, 0, 170), (255, 85, 0), (255, 170, 0)),
    *((0, 255, 255), (85, 255, 255), (170, 255, 255), (255, 0, 255)),
)
"""The usual color of each class as (R, G, B) in 0..255; the background is black."""

MIRRORED_CLASSES = tuple(
    PARSING_CLASSES.index({"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:])
    if name[2:] in ("brow", "eye", "ear")
    else index
    for index, name in enumerate(PARSING_CLASSES)
)
"""The class that each class becomes in a mirrored picture: brows, eyes and ears change sides."""
