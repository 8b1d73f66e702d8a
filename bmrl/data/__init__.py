"""Manifests, data sets, prompts, importers and the simulated data set.

Names load on first use, so that reading a manifest loads neither the tokenizer nor the training libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._lazy import lazy_names

if TYPE_CHECKING:
    from bmrl.data.alterations import ALTERATIONS, Alteration
    from bmrl.data.dataset import FaceDataset
    from bmrl.data.finding import FoundImages, find_images
    from bmrl.data.importers.folder import import_faces
    from bmrl.data.importers.report import ImportReport
    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.data.simulated import SimulationReport, simulate

__all__ = [
    "ALTERATIONS",
    "Alteration",
    "FaceDataset",
    "FoundImages",
    "ImportReport",
    "Manifest",
    "Row",
    "SimulationReport",
    "find_images",
    "import_faces",
    "simulate",
]

_HOMES = {
    "ALTERATIONS": "alterations",
    "Alteration": "alterations",
    "FaceDataset": "dataset",
    "FoundImages": "finding",
    "ImportReport": "importers.report",
    "Manifest": "manifest",
    "Row": "row",
    "SimulationReport": "simulated.report",
    "find_images": "finding",
    "import_faces": "importers.folder",
    "simulate": "simulated",
}

__getattr__ = lazy_names(__name__, _HOMES)
