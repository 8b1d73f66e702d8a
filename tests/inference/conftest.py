"""The network whose answers can be worked out by hand, as the evaluation's tests use it."""

from __future__ import annotations

from tests.evaluation.conftest import classes, expected_probabilities, judge_color, manifest, model, small_config

__all__ = ["classes", "expected_probabilities", "judge_color", "manifest", "model", "small_config"]
