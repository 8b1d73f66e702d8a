"""From the features of a tower to one embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmrl.encoders.transformer import TransformerEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PooledReader", "TokenReader"]

_LEAST_VARIANCE = 1e-6
"""Added before the root, whose gradient has no bound at zero: a map of one position has no variance."""


class PooledReader(nn.Module):
    """One linear projection of numbers per channel, normalized per stage so that each stage counts equally.

    Args:
        shapes: of the features, without the batch: ``(channels, height, width)`` or ``(channels,)`` each.
        embed_dim: width of the embedding.
        deviation: whether a channel gives its standard deviation over all positions too, the root of the variance
            + 1e-6, and not its mean alone.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], embed_dim: int, *, deviation: bool) -> None:
        super().__init__()
        self.deviation = deviation
        widths = [shape[0] * (2 if deviation else 1) for shape in shapes]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.projection = nn.Linear(sum(widths), embed_dim)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(batch, embed_dim)``."""
        dtype = self.projection.weight.dtype
        pairs = zip(self.norms, features, strict=True)
        numbers = [norm(self._pooled(each).to(dtype)) for norm, each in pairs]
        embedding: Tensor = self.projection(torch.cat(numbers, dim=-1))
        return embedding

    def _pooled(self, feature: Tensor) -> Tensor:
        """Return the numbers per channel, computed in float32 at least, in which squares of halves do not overflow."""
        if feature.ndim == 2:
            return feature
        feature = feature.to(torch.promote_types(feature.dtype, torch.float32))
        mean = feature.mean(dim=(2, 3), keepdim=True)
        if not self.deviation:
            return mean.flatten(1)
        variance = (feature - mean).square().mean(dim=(2, 3), keepdim=True)
        return torch.cat((mean, (variance + _LEAST_VARIANCE).sqrt()), dim=1).flatten(1)


class TokenReader(nn.Module):
    """A transformer that reads each position of each feature map as a token.

    Args:
        shapes: ``(channels, height, width)`` of each map.
        embed_dim: width of the embedding.
        num_blocks, num_heads, mlp_dim, dropout: see :class:`~bmrl.encoders.TransformerEncoder`.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        embed_dim: int,
        *,
        num_blocks: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels, _, _ in shapes)
        self.projections = nn.ModuleList(nn.Linear(channels, embed_dim) for channels, _, _ in shapes)
        self.transformer = TransformerEncoder(
            embed_dim,
            num_tokens=sum(height * width for _, height, width in shapes),
            num_blocks=num_blocks,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            dropout=dropout,
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return ``(batch, embed_dim)``."""
        stages = zip(self.norms, self.projections, features, strict=True)
        tokens = [project(norm(each.flatten(2).mT)) for norm, project, each in stages]
        embedding: Tensor = self.transformer(torch.cat(tokens, dim=1))
        return embedding
