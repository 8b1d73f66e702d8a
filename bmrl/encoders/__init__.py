"""Encoders of images, parsing maps and prompts, each a standalone module."""

from __future__ import annotations

from bmrl.encoders.backbone import ConvBackbone
from bmrl.encoders.config import (
    ConvTransformerConfig,
    CustomConfig,
    EncoderConfig,
    LanguageConfig,
    PretrainedConfig,
    StatisticsConfig,
)
from bmrl.encoders.conv_transformer import ConvTransformer
from bmrl.encoders.kinds import ENCODERS, build_encoder
from bmrl.encoders.language import LanguageEncoder, tokenize
from bmrl.encoders.parsing import ParsingEncoder, color_parsing
from bmrl.encoders.pretrained import PretrainedEncoder
from bmrl.encoders.statistics import StatisticsEncoder
from bmrl.encoders.transformer import SelfAttention, TransformerBlock, TransformerEncoder
from bmrl.encoders.visual import AppearanceEncoder, EdgeEncoder, NoiseEncoder

__all__ = [
    "ENCODERS",
    "AppearanceEncoder",
    "ConvBackbone",
    "ConvTransformer",
    "ConvTransformerConfig",
    "CustomConfig",
    "EdgeEncoder",
    "EncoderConfig",
    "LanguageConfig",
    "LanguageEncoder",
    "NoiseEncoder",
    "ParsingEncoder",
    "PretrainedConfig",
    "PretrainedEncoder",
    "SelfAttention",
    "StatisticsConfig",
    "StatisticsEncoder",
    "TransformerBlock",
    "TransformerEncoder",
    "build_encoder",
    "color_parsing",
    "tokenize",
]
