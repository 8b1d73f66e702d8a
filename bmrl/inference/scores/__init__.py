"""Scores: how much an image looks like those of the seen generators.

Each is a module of logits and embedding, ``(batch, x)`` and ``(batch, d)`` to ``(batch,)``, the higher the more like a
seen picture; ``fit`` makes it from a model's answers about its training pictures.
"""

from __future__ import annotations

from bmrl.inference.scores.base import FittingData, Score
from bmrl.inference.scores.combination import Combined, choose_combination
from bmrl.inference.scores.distances import (
    CenterDistance,
    Mahalanobis,
    NearestNeighbors,
    PrincipalResidual,
    RelativeMahalanobis,
)
from bmrl.inference.scores.kinds import SINGLE_SCORES
from bmrl.inference.scores.logits import Energy, MaxLogit, MaxProbability

__all__ = [
    "SCORES",
    "CenterDistance",
    "Combined",
    "Energy",
    "FittingData",
    "Mahalanobis",
    "MaxLogit",
    "MaxProbability",
    "NearestNeighbors",
    "PrincipalResidual",
    "RelativeMahalanobis",
    "Score",
    "choose_combination",
]

SCORES: dict[str, type[Score]] = {**SINGLE_SCORES, "combined": Combined}
"""All scores by name, as a model's ``decision.score`` names them."""
