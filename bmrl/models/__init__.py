"""BMRL assembled: its configuration and presets, views and blocks, and models on disk."""

from __future__ import annotations

from bmrl.models import presets
from bmrl.models.bmrl import BMRL, BMRLOutput
from bmrl.models.building import build_model
from bmrl.models.config import BMRLConfig
from bmrl.models.fitted import CalibrationAnswers, FittedDecision, References
from bmrl.models.serialization import load_model, save_model
from bmrl.models.views import View, paper_views
from bmrl.models.visual import MultiPerspectiveVisualEncoder

__all__ = [
    "BMRL",
    "BMRLConfig",
    "BMRLOutput",
    "CalibrationAnswers",
    "FittedDecision",
    "MultiPerspectiveVisualEncoder",
    "References",
    "View",
    "build_model",
    "load_model",
    "paper_views",
    "presets",
    "save_model",
]
