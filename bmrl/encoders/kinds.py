"""The kinds of image encoders that a configuration can name: a new one is one entry of :data:`ENCODERS`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from bmrl._fields import Kinds
from bmrl.encoders.config import ConvTransformerConfig, CustomConfig, EncoderConfig, LanguageConfig, PretrainedConfig
from bmrl.encoders.conv_transformer import ConvTransformer
from bmrl.encoders.pretrained import PretrainedEncoder
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["ENCODERS", "AnyEncoder", "Kind", "build_encoder", "options_of"]


class Kind(NamedTuple):
    """A kind of image encoder."""

    config: type[EncoderConfig]
    """What decides its architecture."""
    build: Callable[[Any, int, int, int], nn.Module]
    """``(config, in_channels, input_size, embed_dim)`` to a module that maps ``(batch, in_channels, input_size,
    input_size)`` to ``(batch, embed_dim)``. On the meta device it only needs the right names and shapes."""


def _conv_transformer(
    config: ConvTransformerConfig, in_channels: int, input_size: int, embed_dim: int
) -> ConvTransformer:
    return ConvTransformer(in_channels, input_size, embed_dim=embed_dim, **options_of(config))


def _pretrained(config: PretrainedConfig, in_channels: int, input_size: int, embed_dim: int) -> PretrainedEncoder:
    if in_channels != 3:
        raise ConfigError(f"in_channels: expected 3, of RGB images, with kind 'pretrained', got {in_channels}")
    return PretrainedEncoder(image_size=input_size, embed_dim=embed_dim, **options_of(config))


def options_of(config: EncoderConfig | LanguageConfig) -> dict[str, Any]:
    """Return the fields of a configuration, which its encoder takes by the same names."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "kind"}


ENCODERS: dict[str, Kind] = {
    "conv_transformer": Kind(ConvTransformerConfig, _conv_transformer),
    "pretrained": Kind(PretrainedConfig, _pretrained),
}
"""Kinds by the name that ``config.json`` gives them; the first is the default."""

AnyEncoder = Annotated[
    EncoderConfig, Kinds({name: kind.config for name, kind in ENCODERS.items()} | {"custom": CustomConfig})
]
"""A field that holds the configuration of any kind of image encoder, or says that the user hands one over."""


def build_encoder(config: EncoderConfig, in_channels: int, input_size: int, embed_dim: int) -> nn.Module:
    """Return a freshly initialized image encoder.

    Args:
        config: of any kind but ``custom``.
        in_channels: channels of the input.
        input_size: height and width of the input in pixels.
        embed_dim: width of the embedding.

    Raises:
        ConfigError: the kind cannot be built from plain data.

    Example:
        >>> import torch
        >>> encoder = build_encoder(ConvTransformerConfig(num_blocks=1), 1, 64, 128)
        >>> encoder(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 128])
    """
    if config.kind not in ENCODERS:
        raise ConfigError(f"kind: expected {' or '.join(map(repr, ENCODERS))}, got {config.kind!r}")
    return ENCODERS[config.kind].build(config, in_channels, input_size, embed_dim)
