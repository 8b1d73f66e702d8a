"""Encoders of images, parsing maps and prompts, each a standalone module."""

from __future__ import annotations

from bmrl.encoders.backbone import ConvBackbone
from bmrl.encoders.conv_transformer import ConvTransformer
from bmrl.encoders.language import LanguageEncoder, tokenize
from bmrl.encoders.parsing import ParsingEncoder, color_parsing
from bmrl.encoders.pretrained import PretrainedEncoder
from bmrl.encoders.transformer import SelfAttention, TransformerBlock, TransformerEncoder
from bmrl.encoders.visual import AppearanceEncoder, EdgeEncoder, MultiPerspectiveVisualEncoder, NoiseEncoder

__all__ = [
    "AppearanceEncoder",
    "ConvBackbone",
    "ConvTransformer",
    "EdgeEncoder",
    "LanguageEncoder",
    "MultiPerspectiveVisualEncoder",
    "NoiseEncoder",
    "ParsingEncoder",
    "PretrainedEncoder",
    "SelfAttention",
    "TransformerBlock",
    "TransformerEncoder",
    "color_parsing",
    "tokenize",
]
