"""One patterned image, and whether an exported file still answers it as it did when it was verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bmrl.errors import ArtifactError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["PROBE_TOLERANCES", "SCORE_FACTOR", "check_probe", "probe_difference", "probe_image"]

PROBE_TOLERANCES = {"fp32": 1e-4, "bf16": 2e-2, "int8": 5e-2}
"""How far an answer to the probe may be from that at export, which another processor or engine may have given."""

SCORE_FACTOR = 10
"""How many times as far a score may be."""


def probe_image(size: int) -> Tensor:
    """Return the image ``(1, 3, size, size)`` that a server must answer right to be ready.

    A pattern: a server that corrupts its input still answers right for a black image.
    """
    return torch.arange(3 * size * size).remainder(251).to(torch.uint8).reshape(1, 3, size, size)


def probe_difference(answer: Tensor, right: Tensor) -> float:
    """Return the largest difference of two answers to the probe: probabilities, embedding, and the score at the end.

    It is relative where a number is above 1. Scores count a tenth: distances magnify what an embedding differs by.
    """
    differences = (answer - right).abs() / right.abs().clamp(min=1)
    differences[-1] /= SCORE_FACTOR
    return differences.max().item()


def check_probe(
    name: object, run: Callable[[Tensor], tuple[Tensor, ...]], description: dict[str, Any], engine: str | None = None
) -> None:
    """Check that an exported file answers here as it did at export.

    A processor without instructions for bfloat16 or 8-bit integers may compute something else with the same file.

    Args:
        name: of the file.
        run: the file, opened.
        description: its entry in ``artifact.json``.
        engine: what runs it, for the message.

    Raises:
        VerificationError: it answers differently.
        ArtifactError: the entry does not say how it did.
    """
    try:
        probe = description["verification"]["probe"]
        right = torch.tensor([*probe["probabilities"], *probe["embedding"], *probe["score"]])
        limit = PROBE_TOLERANCES[description["precision"]]
        image = probe_image(description["image_size"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"one without ({type(error).__name__})"
        raise ArtifactError(f"{name}: expected an entry that holds the answer at export, got {reason}") from error
    answer = torch.cat(run(image), 1)[0]
    if answer.shape != right.shape:
        raise VerificationError(f"{name}: expected {len(right)} numbers, as at export, got {len(answer)}")
    difference = probe_difference(answer, right)
    if not difference <= limit:  # nor is NaN
        by = "" if engine is None else f" by {engine}"
        raise VerificationError(
            f"{name}: expected an answer{by} as at export within {limit:g}, got a difference of {difference:g} on this "
            "processor; export it here, or as fp32"
        )
