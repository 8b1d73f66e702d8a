"""Image operators: the edge and noise views, and the patch that shows the most noise."""

from __future__ import annotations

from bmrl.ops.edges import Sobel, sobel
from bmrl.ops.luma import Grayscale, grayscale
from bmrl.ops.noise import SRM, srm
from bmrl.ops.patches import PatchHomogeneity, RichestPatch, patch_homogeneity, richest_patch
from bmrl.ops.view_extraction import ViewExtractor, Views, views

__all__ = [
    "SRM",
    "Grayscale",
    "PatchHomogeneity",
    "RichestPatch",
    "Sobel",
    "ViewExtractor",
    "Views",
    "grayscale",
    "patch_homogeneity",
    "richest_patch",
    "sobel",
    "srm",
    "views",
]
