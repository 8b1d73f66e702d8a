"""The version, which saved models and exported files record."""

from __future__ import annotations

__version__ = "0.1.0"
