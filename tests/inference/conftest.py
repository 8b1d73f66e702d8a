"""The network whose answers can be worked out by hand, as the evaluation's tests use it."""

from __future__ import annotations

from tests.evaluation.conftest import (
    classes,
    data,
    expected_probabilities,
    judge_color,
    manifest,
    model,
    small,
    small_config,
)

__all__ = ["classes", "data", "expected_probabilities", "judge_color", "manifest", "model", "small", "small_config"]
