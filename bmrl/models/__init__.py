"""BMRL assembled: its configuration, presets, and models on disk."""

from __future__ import annotations

from bmrl.models import presets
from bmrl.models.assembly import BMRL, BMRLOutput, build_model
from bmrl.models.config import BMRLConfig
from bmrl.models.folder import load_model, save_model

__all__ = ["BMRL", "BMRLConfig", "BMRLOutput", "build_model", "load_model", "presets", "save_model"]
