"""Pre-norm transformer blocks, and the encoder that reads a sequence into one class token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bmrl._checks import check_integer, check_shape, check_share
from bmrl._values import check_switch
from bmrl.errors import ConfigError

__all__ = ["SelfAttention", "TransformerBlock", "TransformerEncoder"]


class SelfAttention(nn.Module):
    """Multi-head self-attention, scaled by the width of a head.

    Args:
        embed_dim: width of a token.
        num_heads: a divisor of ``embed_dim``.
        causal: a token attends to itself and earlier ones only.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, causal: bool = False) -> None:
        super().__init__()
        check_integer("embed_dim", embed_dim, least=1)
        check_integer("num_heads", num_heads, least=1)
        check_switch("causal", causal)
        if embed_dim % num_heads:
            raise ConfigError(f"num_heads: expected a divisor of embed_dim {embed_dim}, got {num_heads}")
        self.num_heads = num_heads
        self.causal = causal
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(batch, tokens, dim)`` from ``(batch, tokens, dim)``."""
        q, k, v = rearrange(self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        merged: Tensor = self.out(rearrange(attended, "b h n d -> b n (h d)"))
        return merged


class TransformerBlock(nn.Module):
    """Attention and a GELU MLP, each after a layer norm and with a residual connection.

    Args:
        embed_dim: width of a token.
        num_heads: attention heads, a divisor of ``embed_dim``.
        mlp_dim: hidden width of the MLP.
        causal: a token attends to itself and earlier ones only.
        dropout: probability of dropping a unit of either branch, and one of the MLP's hidden layer; below 1.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(
        self, embed_dim: int, *, num_heads: int = 8, mlp_dim: int = 1024, causal: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_integer("embed_dim", embed_dim, least=1)
        check_integer("mlp_dim", mlp_dim, least=1)
        check_share("dropout", dropout)
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = SelfAttention(embed_dim, num_heads, causal=causal)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, embed_dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(batch, tokens, dim)`` from ``(batch, tokens, dim)``."""
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens)))
        return tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))


class TransformerEncoder(nn.Module):
    """A learnable class token and position embedding before the blocks, a layer norm after them.

    Args:
        embed_dim: width d of a token.
        num_tokens: tokens n of the sequence, the class token not counted.
        num_blocks: how many blocks.
        num_heads: attention heads per block, a divisor of ``embed_dim``.
        mlp_dim: hidden width of each MLP.
        dropout: probability of dropping a unit in each block.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: ``num_heads`` does not divide ``embed_dim``.

    Source: eq. 1-2 of arXiv:2504.14129.
    """

    def __init__(
        self,
        embed_dim: int = 512,
        *,
        num_tokens: int,
        num_blocks: int = 6,
        num_heads: int = 8,
        mlp_dim: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_integer("embed_dim", embed_dim, least=1)
        check_integer("num_tokens", num_tokens, least=1)
        check_integer("num_blocks", num_blocks, least=1)
        self.embed_dim = embed_dim
        self.num_tokens = num_tokens
        self.class_token = nn.Parameter(torch.empty(embed_dim))
        self.position_embedding = nn.Parameter(torch.empty(num_tokens + 1, embed_dim))
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.02)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(embed_dim, num_heads=num_heads, mlp_dim=mlp_dim, dropout=dropout)
                for _ in range(num_blocks)
            )
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the class token after the last block.

        Args:
            tokens: ``(batch, num_tokens, embed_dim)``, floating point.

        Returns:
            ``(batch, embed_dim)``.

        Raises:
            ShapeError: not three axes, or another number or width of tokens.
        """
        check_shape("tokens", tokens, "batch tokens dim", tokens=self.num_tokens, dim=self.embed_dim)
        class_token = self.class_token.expand(tokens.shape[0], 1, -1)
        sequence = torch.cat((class_token, tokens), dim=1) + self.position_embedding
        normed: Tensor = self.norm(self.blocks(sequence)[:, 0])
        return normed
