"""Manifests, data sets, prompts, importers and the simulated data set.

Names load on first use, so that reading a manifest loads neither the tokenizer nor the training libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

if TYPE_CHECKING:
    from bmrl.data.dataset import FaceDataset
    from bmrl.data.finding import FoundImages, find_images
    from bmrl.data.importers.folder import import_folder
    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.data.simulated import simulate

__all__ = ["FaceDataset", "FoundImages", "Manifest", "Row", "find_images", "import_folder", "simulate"]

_HOMES = {
    "FaceDataset": "dataset",
    "FoundImages": "finding",
    "Manifest": "manifest",
    "Row": "row",
    "find_images": "finding",
    "import_folder": "importers.folder",
    "simulate": "simulated",
}

__getattr__ = lazy_names(__name__, _HOMES)
