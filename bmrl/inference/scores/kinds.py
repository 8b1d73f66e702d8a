"""The scores that are computed from one thing each, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.inference.scores.distances import (
    CenterDistance,
    Mahalanobis,
    NearestNeighbors,
    PrincipalResidual,
    RelativeMahalanobis,
)
from bmrl.inference.scores.logits import Energy, MaxLogit, MaxProbability

if TYPE_CHECKING:
    from bmrl.inference.scores.base import Score

__all__ = ["SINGLE_SCORES"]

SINGLE_SCORES: dict[str, type[Score]] = {
    "max_probability": MaxProbability,
    "max_logit": MaxLogit,
    "energy": Energy,
    "mahalanobis": Mahalanobis,
    "relative_mahalanobis": RelativeMahalanobis,
    "neighbors": NearestNeighbors,
    "center_distance": CenterDistance,
    "principal_residual": PrincipalResidual,
}
"""What a combination is made of."""
