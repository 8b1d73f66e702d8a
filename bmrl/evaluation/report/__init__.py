"""The report of an evaluation: one HTML file, its tables and its pictures."""

from __future__ import annotations

from bmrl.evaluation.report.page import render_report

__all__ = ["render_report"]
