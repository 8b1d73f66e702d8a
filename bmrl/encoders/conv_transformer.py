"""The structure all image encoders share: backbone, tokens, transformer, class token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from bmrl._checks import check_floating, check_integer, check_shape
from bmrl._values import check_choice
from bmrl.encoders.backbone import ConvBackbone
from bmrl.encoders.transformer import TransformerEncoder
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConvTransformer"]


class ConvTransformer(nn.Module):
    """A convolutional backbone whose feature map a transformer reads into one embedding.

    Args:
        in_channels: channels of the input.
        input_size: height and width of the input in pixels; a multiple of the backbone's stride.
        embed_dim: width d of the embedding.
        channels: backbone channels, one per stage.
        convs_per_stage: convolutions per stage.
        num_blocks: transformer blocks.
        num_heads: attention heads, a divisor of ``embed_dim``.
        mlp_dim: hidden width of each block's MLP.
        dropout: probability of dropping a unit in each block.
        token_patch: ``"all"`` flattens the whole feature map into one token (the paper), ``1`` makes one token of
            each position.
        final_pool: whether the backbone's last stage pools.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: ``input_size`` is not a multiple of the stride, or widths do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        input_size: int,
        *,
        embed_dim: int = 512,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        convs_per_stage: Sequence[int] = (3, 3, 3, 4, 4),
        num_blocks: int = 6,
        num_heads: int = 8,
        mlp_dim: int = 1024,
        dropout: float = 0.0,
        token_patch: Literal["all", 1] = "all",
        final_pool: bool = True,
    ) -> None:
        super().__init__()
        check_integer("input_size", input_size, least=1)
        check_integer("embed_dim", embed_dim, least=1)
        check_choice("token_patch", token_patch, ("all", 1))
        self.in_channels = in_channels
        self.input_size = input_size
        self.token_patch = token_patch
        self.backbone = ConvBackbone(
            in_channels, channels=channels, convs_per_stage=convs_per_stage, final_pool=final_pool
        )
        side, remainder = divmod(input_size, self.backbone.stride)
        if remainder or not side:
            raise ConfigError(f"input_size: expected a multiple of {self.backbone.stride}, got {input_size}")
        num_tokens, token_dim = (1, channels[-1] * side * side) if token_patch == "all" else (side * side, channels[-1])
        self.projection = nn.Linear(token_dim, embed_dim)
        self.transformer = TransformerEncoder(
            embed_dim,
            num_tokens=num_tokens,
            num_blocks=num_blocks,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            dropout=dropout,
        )

    @property
    def dtype(self) -> torch.dtype:
        """What the encoder computes in; in a replica of ``nn.DataParallel`` too, which has no ``parameters()``."""
        return self.transformer.class_token.dtype

    def forward(self, images: Tensor) -> Tensor:
        """Return the class token, ``(batch, embed_dim)``, of ``(batch, in_channels, input_size, input_size)``.

        Raises:
            ShapeError: another shape.
            DTypeError: not floating point.
        """
        size = self.input_size
        check_shape("images", images, "batch channels height width", channels=self.in_channels, height=size, width=size)
        check_floating("images", images)
        features = self.backbone(images)
        pattern = "b c h w -> b 1 (c h w)" if self.token_patch == "all" else "b c h w -> b (h w) c"
        embedding: Tensor = self.transformer(self.projection(rearrange(features, pattern)))
        return embedding
