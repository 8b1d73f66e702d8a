"""BMRL assembled from its encoders and heads."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from bmrl.encoders import LanguageEncoder, MultiPerspectiveVisualEncoder, ParsingEncoder
from bmrl.errors import DTypeError
from bmrl.models.config import BMRLConfig

__all__ = ["BMRL", "BMRLOutput", "build_model"]


class BMRLOutput(NamedTuple):
    """What :class:`BMRL` returns; the last four are None when their branch is off or has no input."""

    logits: Tensor
    """``(batch, num_generators)``."""
    probabilities: Tensor
    """``(batch, num_generators)``, softmax of the logits; rows sum to 1."""
    embedding: Tensor
    """``(batch, embed_dim)``, the visual embedding I_v, L2-normalized unless the configuration says otherwise."""
    predicted_language: Tensor | None = None
    """``(batch, embed_dim)``, the predictor's guess T_pre of the language embedding."""
    parsing: Tensor | None = None
    """``(batch, embed_dim)``, the parsing embedding P_g."""
    language: Tensor | None = None
    """``(batch, embed_dim)``, the language embedding T_l."""
    parsing_mask: Tensor | None = None
    """``(batch,)`` bool, which rows have a parsing map; None means all."""


class BMRL(nn.Module):
    """Bi-modal guided multi-perspective representation learning (arXiv:2504.14129).

    The visual encoder and a linear head attribute an image; the parsing and language encoders guide the visual
    encoder in training and are not used at inference.

    Args:
        config: the architecture. Build with :func:`build_model`.

    Raises:
        DTypeError: ``config`` is something else.
    """

    def __init__(self, config: BMRLConfig) -> None:
        super().__init__()
        if not isinstance(config, BMRLConfig):
            raise DTypeError(f"config: expected a BMRLConfig, got {type(config).__name__}")
        self.config = config
        widths: dict[str, Any] = {
            "embed_dim": config.embed_dim,
            "num_heads": config.num_heads,
            "mlp_dim": config.mlp_dim,
            "dropout": config.dropout,
        }
        stack = widths | {
            "channels": config.channels,
            "convs_per_stage": config.convs_per_stage,
            "token_patch": config.token_patch,
        }
        self.visual_encoder = MultiPerspectiveVisualEncoder(
            config.image_size,
            config.patch_size,
            appearance=config.appearance,
            edge=config.edge,
            noise=config.noise,
            noise_truncation=config.noise_truncation,
            fusion=config.fusion,
            num_blocks=config.visual_blocks,
            **stack,
        )
        self.head = nn.Sequential(
            nn.LayerNorm(config.embed_dim) if config.head_norm else nn.Identity(),
            nn.Dropout(config.dropout),
            nn.Linear(config.embed_dim, config.num_generators),
        )
        self.parsing_encoder = (
            ParsingEncoder(config.image_size, num_blocks=config.parsing_blocks, **stack) if config.parsing else None
        )
        self.language_encoder = (
            LanguageEncoder(
                vocab_size=config.vocab_size,
                context_length=config.context_length,
                num_levels=config.num_levels,
                num_blocks=config.language_blocks,
                readout=config.readout,
                **widths,
            )
            if config.language
            else None
        )
        self.predictor = nn.Linear(config.embed_dim, config.embed_dim) if config.language else None

    def forward(self, images: Tensor, parsing: Tensor | None = None, tokens: Tensor | None = None) -> BMRLOutput:
        """Attribute a batch of images; with ``parsing`` and ``tokens`` also return what guides the training.

        Args:
            images: ``(batch, 3, image_size, image_size)`` RGB, uint8 in 0..255 or floating point in [0, 1].
            parsing: ``(batch, image_size, image_size)`` uint8 or int64 class indices 0..18, or None.
            tokens: ``(batch, num_levels, context_length)`` int64 word tokens, or None.

        Returns:
            :class:`BMRLOutput`; a branch that is off or has no input gives None.

        Raises:
            ShapeError, DTypeError, RangeError: as the encoders.
        """
        embedding = self.visual_encoder(images)
        if self.config.normalize_embedding:
            embedding = F.normalize(embedding, dim=-1)
        logits = self.head(embedding)
        with_parsing = self.parsing_encoder is not None and parsing is not None
        with_language = self.language_encoder is not None and tokens is not None
        return BMRLOutput(
            logits=logits,
            probabilities=logits.softmax(dim=-1),
            embedding=embedding,
            predicted_language=self.predictor(embedding) if self.predictor is not None else None,
            parsing=self.parsing_encoder(parsing) if with_parsing else None,  # type: ignore[misc]
            language=self.language_encoder(tokens) if with_language else None,  # type: ignore[misc]
        )


def build_model(config: BMRLConfig) -> BMRL:
    """Return a freshly initialized model, in training mode, on PyTorch's default device and in its default dtype.

    Args:
        config: the architecture; see :mod:`bmrl.models.presets`.

    Raises:
        DTypeError: ``config`` is something else.

    Example:
        >>> import torch
        >>> from bmrl.models import presets
        >>> model = build_model(presets.tiny(num_generators=7)).eval()
        >>> model(torch.zeros(1, 3, 128, 128, dtype=torch.uint8)).probabilities.shape
        torch.Size([1, 7])
    """
    return BMRL(config)
