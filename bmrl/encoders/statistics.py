"""The encoder of statistics: numbers that are already what there is to see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmrl._checks import check_floating, check_integer, check_shape, check_share
from bmrl.ops.statistics import NUM_STATISTICS

__all__ = ["StatisticsEncoder"]

_BOUND = 6.0
"""Standardized numbers beyond this are clamped: what was hardly ever seen in training decides nothing by its size."""
_LEAST_DEVIATION = 1e-4
"""Of a number that hardly changes in training."""


class StatisticsEncoder(nn.Module):
    """Statistics of images to embeddings: standardized by what was seen in training, then two layers.

    The mean and the variance of each number are those of all images since the first step of training, and are used in
    training too: unlike batch norm, an embedding does not depend on the other images of the batch. They are buffers.

    Args:
        num_statistics: numbers per image.
        embed_dim: width d of the embedding.
        hidden_dim: width of the hidden layer.
        dropout: probability of dropping a unit of the hidden layer, below 1.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.

    Example:
        >>> import torch
        >>> from bmrl.ops import residual_statistics
        >>> encoder = StatisticsEncoder(embed_dim=32).eval()
        >>> encoder(residual_statistics(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))).shape
        torch.Size([2, 32])
    """

    mean: Tensor
    variance: Tensor
    num_images: Tensor

    def __init__(
        self,
        num_statistics: int = NUM_STATISTICS,
        *,
        embed_dim: int = 512,
        hidden_dim: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_integer("num_statistics", num_statistics, least=1)
        check_integer("embed_dim", embed_dim, least=1)
        check_integer("hidden_dim", hidden_dim, least=1)
        check_share("dropout", dropout)
        self.num_statistics = num_statistics
        self.embed_dim = embed_dim
        self.register_buffer("mean", torch.zeros(num_statistics))
        self.register_buffer("variance", torch.ones(num_statistics))
        self.register_buffer("num_images", torch.zeros(()))  # a float, which an average of weights can average
        self.hidden = nn.Linear(num_statistics, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(hidden_dim, embed_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Float32: what the encoder reads, also where its layers compute in halves, which have too few digits."""
        return torch.promote_types(self.mean.dtype, torch.float32)

    def forward(self, statistics: Tensor) -> Tensor:
        """Return the embedding, ``(batch, embed_dim)``, not normalized.

        Args:
            statistics: ``(batch, num_statistics)``, floating point; not standardized, which the encoder does itself.

        Raises:
            ShapeError, DTypeError: ``statistics`` is not such a tensor.
        """
        check_shape("statistics", statistics, "batch statistics", statistics=self.num_statistics)
        check_floating("statistics", statistics)
        statistics = statistics.to(self.dtype)
        if self.training:
            self._learn(statistics.detach())
        deviation = self.variance.to(self.dtype).sqrt() + _LEAST_DEVIATION
        standardized = ((statistics - self.mean) / deviation).clamp(-_BOUND, _BOUND)
        hidden = nn.functional.gelu(self.hidden(standardized.to(self.hidden.weight.dtype)))
        embedding: Tensor = self.projection(self.dropout(hidden))
        return embedding

    @torch.no_grad()
    def _learn(self, statistics: Tensor) -> None:
        """Take a batch into the mean and the variance, by the parallel formula of Chan, Golub and LeVeque (1979)."""
        count = statistics.shape[0]
        share = count / (self.num_images + count).clamp(min=1)
        mean = statistics.mean(dim=0) if count else self.mean.to(self.dtype)
        shift = mean - self.mean
        squares = (statistics - mean).square().sum(dim=0) / max(count, 1)
        variance = (1 - share) * self.variance + share * squares + share * (1 - share) * shift.square()
        self.mean.add_((share * shift).to(self.mean.dtype))
        self.variance.copy_(variance)
        self.num_images.add_(count)
