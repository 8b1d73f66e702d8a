"""The ``(batch, batch)`` pairs of a contrastive loss: their similarities, whole or a chunk of rows, and targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bmrl._transforms import has_values
from bmrl.losses._batches import check_finite

__all__ = ["Pairs", "cross_entropies", "of_length"]

_TINY = 1e-15


def of_length(length: float | Tensor, name: str, rows: Tensor) -> Tensor:
    """Rows scaled to one length, from any scale, after a check that they are finite.

    A zero row stays zero and gets a finite gradient.
    """
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    if has_values(norms):
        shortest, longest = norms.detach().aminmax()
        if float(shortest) > _TINY and float(longest) < 1 / _TINY:  # nearly always, and finite then
            return rows * (length / norms)
        check_finite(name, rows)
    # The largest element is taken to 1 first, so that squares stay in the range of the dtype. A direction does not
    # depend on scale, which therefore needs no gradient.
    largest = rows.detach().abs().amax(-1, keepdim=True)
    rows = rows / torch.where(largest > 1e3 * torch.finfo(rows.dtype).tiny, largest, 1.0)
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows * (length / (norms + (norms == 0)))


class Pairs(NamedTuple):
    """What is known of the ``(batch, batch)`` pairs, in linear memory but for the gate; each may be None.

    ``rows`` are those of the matrix of which a method makes a chunk.
    """

    labels: Tensor | None
    gate: Tensor | None
    mask: Tensor | None

    def logits(self, similarities: Tensor, rows: slice) -> Tensor:
        """Gated and masked similarities ``(rows, batch)``.

        A masked row keeps only itself: its cross-entropy and its gradient are then exactly 0, without a selection
        whose size a GPU would have to report. The fill is finite because 0 * -inf is NaN.
        """
        if self.gate is not None:
            similarities = similarities * self.gate[rows].to(similarities.dtype).sigmoid()
        if self.mask is not None:
            similarities = similarities.masked_fill(~self._kept(self.mask, rows), torch.finfo(similarities.dtype).min)
        return similarities

    def targets(self, rows: slice, like: Tensor) -> Tensor:
        """Target probabilities: ``(rows,)`` indices of the one positive, or ``(rows, batch)`` rows that sum to 1."""
        if self.labels is None:
            return torch.arange(rows.start, rows.stop, device=like.device)
        positives = self.labels[rows, None] == self.labels[None, :]
        if self.mask is not None:
            positives = positives & self._kept(self.mask, rows)
        target = positives.to(like.dtype)
        return target / target.sum(-1, keepdim=True)

    @staticmethod
    def _kept(mask: Tensor, rows: slice) -> Tensor:
        places = torch.arange(mask.shape[0], device=mask.device)
        return (mask[rows, None] & mask[None, :]) | (places[rows, None] == places[None, :])


def cross_entropies(queries: Tensor, keys: Tensor, pairs: Pairs) -> Tensor:
    """Both cross-entropies of each row, added: ``(batch,)``, with all pairs held at once."""
    all_rows = slice(0, queries.shape[0])
    logits = pairs.logits(queries @ keys.mT, all_rows)
    if pairs.labels is None:
        # Transposed, not along the columns: there the kernel loses the digits of a small loss.
        return -(logits.log_softmax(1) + logits.mT.log_softmax(1)).diagonal()
    target = pairs.targets(all_rows, logits)
    there = F.cross_entropy(logits, target, reduction="none")
    return there + F.cross_entropy(logits.mT, target, reduction="none")
