"""What becomes of the losses of single rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["REDUCTIONS", "Reduction", "reduced"]

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def reduced(rows: Tensor, reduction: Reduction, num_rows: int | Tensor | None = None) -> Tensor:
    """The mean, the sum, or the losses ``(batch,)`` themselves; ``num_rows`` of them count in the mean (None: all)."""
    if reduction == "none":
        return rows
    total = rows.sum()
    return total if reduction == "sum" else total / (rows.shape[0] if num_rows is None else num_rows)
