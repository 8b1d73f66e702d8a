"""Image operators: the edge and noise views, the patch that shows the most noise, and statistics of residuals."""

from __future__ import annotations

from bmrl.ops.edges import Sobel, sobel
from bmrl.ops.luma import Grayscale, grayscale
from bmrl.ops.noise import SRM, srm
from bmrl.ops.patches import PatchHomogeneity, RichestPatch, all_patches, patch_homogeneity, richest_patch
from bmrl.ops.statistics import NUM_STATISTICS, STATISTICS, ResidualStatistics, residual_statistics
from bmrl.ops.view_extraction import ViewExtractor, Views, views

__all__ = [
    "NUM_STATISTICS",
    "SRM",
    "STATISTICS",
    "Grayscale",
    "PatchHomogeneity",
    "ResidualStatistics",
    "RichestPatch",
    "Sobel",
    "ViewExtractor",
    "Views",
    "all_patches",
    "grayscale",
    "patch_homogeneity",
    "residual_statistics",
    "richest_patch",
    "sobel",
    "srm",
    "views",
]
