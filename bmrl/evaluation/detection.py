"""Detection (real or fake) read off the probabilities of an attribution model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from bmrl._checks import check_dtype, check_shape
from bmrl.errors import RangeError
from bmrl.evaluation.metrics import accuracy, auroc, balanced_accuracy
from bmrl.inference.checks import as_probabilities, as_scores, check_generators

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bmrl.generators import Generator
    from bmrl.inference.checks import Values

__all__ = ["DETECTION_MEASURES", "DetectionMeasure", "detection_metrics", "real_probability"]


class DetectionMeasure(NamedTuple):
    """A metric of detection: its key in JSON, its header, and how it is computed.

    ``compute`` takes the probability of a photograph ``(n,)`` and the truth ``(n,)`` bool; one that needs photographs
    and fakes is None where either is missing.
    """

    name: str
    title: str
    compute: Callable[[Tensor, Tensor], float]
    needs_both: bool = True


def _two_class(probability_real: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
    return torch.stack([probability_real, 1 - probability_real], dim=1), (~is_real).long()  # a tie goes to real


DETECTION_MEASURES = (
    DetectionMeasure("accuracy", "accuracy", lambda *case: accuracy(*_two_class(*case)), needs_both=False),
    DetectionMeasure("balanced_accuracy", "balanced accuracy", lambda *case: balanced_accuracy(*_two_class(*case))),
    DetectionMeasure("auroc", "AUROC", lambda scores, is_real: auroc(scores[is_real], scores[~is_real])),
)
"""All metrics of detection: ``metrics.json`` and the report walk them."""


def real_probability(probabilities: Values, generators: Sequence[Generator]) -> Tensor:
    """Return the probability that each image is a photograph: the sum over the classes that are.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1.
        generators: the x classes.

    Returns:
        ``(n,)`` float64 in 0 .. 1, on the CPU.

    Raises:
        RangeError: no class is a photograph, or all are: the sum would not depend on the image.
    """
    check_generators(generators)
    real = torch.tensor([generator.is_real for generator in generators])
    checked = as_probabilities("probabilities", probabilities)
    check_shape("probabilities", checked, "images generators", generators=len(generators))
    if real.all() or not real.any():
        kind = "real" if real.all() else "generated"
        raise RangeError(f"generators: expected real and generated classes, got {kind} ones only")
    return checked[:, real].sum(dim=1).clamp(0, 1)


def detection_metrics(probability_real: Tensor, is_real: Tensor) -> dict[str, Any]:
    """Return the metrics of a two-class test: an image counts as real when ``probability_real`` is at least 0.5.

    Args:
        probability_real: ``(n,)`` floating point in 0 .. 1, n >= 1.
        is_real: ``(n,)`` bool, the truth.

    Returns:
        ``num_real``, ``num_fake``, ``accuracy``, ``balanced_accuracy`` (both in 0 .. 1) and ``auroc`` (the chance
        that a fake image looks less real than a real one); the last two are None unless both kinds occur.

    Raises:
        ShapeError, DTypeError, RangeError: an argument is none of these.
    """
    probability_real = as_scores("probability_real", probability_real)
    check_shape("is_real", is_real, "images", images=len(probability_real))
    check_dtype("is_real", is_real, torch.bool)
    is_real = is_real.cpu()
    num_real = int(is_real.sum())
    num_fake = len(is_real) - num_real
    both = num_real > 0 and num_fake > 0
    return {"num_real": num_real, "num_fake": num_fake} | {
        entry.name: entry.compute(probability_real, is_real) if both or not entry.needs_both else None
        for entry in DETECTION_MEASURES
    }
