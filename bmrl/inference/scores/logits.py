"""Scores of the logits alone: nothing is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.inference.scores.base import BufferScore

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from bmrl.inference.scores.base import FittingData

__all__ = ["Energy", "MaxLogit", "MaxProbability"]


class _LogitScore(BufferScore):
    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Return the score; it learns nothing."""
        return cls()


class MaxProbability(_LogitScore):
    r"""The probability of the most probable class, :math:`\max_k p_k`: the paper's.

    Source: arXiv:2504.14129, section 4.1; Hendrycks and Gimpel, arXiv:1610.02136.

    Example:
        >>> import torch
        >>> MaxProbability()(torch.tensor([[0.0, 0.0]]), torch.zeros(1, 4))
        tensor([0.5000])
    """

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)`` in 1/x .. 1 for x classes."""
        return logits.softmax(dim=-1).amax(dim=-1)


class MaxLogit(_LogitScore):
    r"""The largest logit, :math:`\max_k z_k`.

    Source: Hendrycks et al., arXiv:1911.11132.
    """

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``."""
        return logits.amax(dim=-1)


class Energy(_LogitScore):
    r"""The negative energy, :math:`\log \sum_k \exp z_k`.

    Source: Liu et al., arXiv:2010.03759.
    """

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``."""
        return logits.logsumexp(dim=-1)
