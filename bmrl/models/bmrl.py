"""BMRL: the module, made of components."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from bmrl.models.config import BMRLConfig
    from bmrl.models.fitted import FittedDecision
    from bmrl.models.visual import MultiPerspectiveVisualEncoder

__all__ = ["BMRL", "BMRLOutput"]


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

    The visual encoder and a head attribute an image; the parsing and language encoders guide the visual encoder in
    training and are not used at inference. Build with :func:`~bmrl.models.build_model`, which checks every part.

    Args:
        config: what the parts were built from.
        visual_encoder: images to ``(batch, embed_dim)``.
        head: ``(batch, embed_dim)`` to ``(batch, num_generators)``.
        parsing_encoder: parsing maps to ``(batch, embed_dim)``; None is off.
        language_encoder: tokens to ``(batch, embed_dim)``; None is off.
        predictor: ``(batch, embed_dim)`` to the language embedding; None where ``language_encoder`` is.

    Attributes:
        decision: what :func:`bmrl.inference.calibrate` fitted after the training, which decides where
            ``config.decision.score`` names a score; None before.
    """

    config: BMRLConfig
    decision: FittedDecision | None

    def __init__(
        self,
        config: BMRLConfig,
        visual_encoder: MultiPerspectiveVisualEncoder,
        head: nn.Module,
        *,
        parsing_encoder: nn.Module | None = None,
        language_encoder: nn.Module | None = None,
        predictor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.decision = None
        self.visual_encoder = visual_encoder
        self.head = head
        self.parsing_encoder = parsing_encoder
        self.language_encoder = language_encoder
        self.predictor = predictor

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
        if self.config.head.normalize_embedding:
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
