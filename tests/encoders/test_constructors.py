"""What a constructor of an encoder refuses, naming the argument, before it makes anything."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bmrl.encoders import (
    AppearanceEncoder,
    ConvBackbone,
    ConvTransformer,
    EdgeEncoder,
    LanguageEncoder,
    NoiseEncoder,
    ParsingEncoder,
    SelfAttention,
    TransformerBlock,
    TransformerEncoder,
    color_parsing,
    tokenize,
)
from bmrl.errors import ConfigError, DTypeError, RangeError, ShapeError
from bmrl.models import MultiPerspectiveVisualEncoder, View, build_model, paper_views
from bmrl.models.views import Residuals
from bmrl.ops import Sobel

MPVE = MultiPerspectiveVisualEncoder
IMAGE_ENCODERS = (AppearanceEncoder, EdgeEncoder, ParsingEncoder, NoiseEncoder)
SIZES = ("embed_dim", "num_blocks", "num_heads", "mlp_dim")


def arguments_of(encoder: type) -> dict[str, object]:
    """The fewest arguments that an encoder takes."""
    stack = {"channels": (3, 4), "convs_per_stage": (1, 1), "embed_dim": 8, "num_heads": 2}
    others = {
        ConvBackbone: {"channels": (3, 4), "convs_per_stage": (1, 1)},
        Residuals: {},
        ConvTransformer: stack | {"in_channels": 3, "input_size": 32},
        LanguageEncoder: {"vocab_size": 9, "embed_dim": 8, "num_heads": 2},
        SelfAttention: {"embed_dim": 8, "num_heads": 2},
        TransformerBlock: {"embed_dim": 8},
        TransformerEncoder: {"embed_dim": 8, "num_tokens": 2},
    }
    return others.get(encoder, stack)


COUNTS = [
    *((encoder, "patch_size" if encoder is NoiseEncoder else "image_size") for encoder in IMAGE_ENCODERS),
    *((encoder, name) for encoder in (*IMAGE_ENCODERS, ConvTransformer, LanguageEncoder) for name in SIZES),
    *((LanguageEncoder, name) for name in ("vocab_size", "context_length", "num_levels")),
    *((TransformerEncoder, name) for name in (*SIZES, "num_tokens")),
    *((TransformerBlock, name) for name in ("embed_dim", "num_heads", "mlp_dim")),
    *((SelfAttention, name) for name in ("embed_dim", "num_heads")),
    *((ConvTransformer, name) for name in ("in_channels", "input_size")),
    (ConvBackbone, "in_channels"),
    (Residuals, "patch_size"),
    (paper_views, "image_size"),
]


@pytest.mark.parametrize(("encoder", "name"), COUNTS)
@pytest.mark.parametrize("value", [0, -1, 8.0, True, "8"])
def test_counts(encoder, name, value):
    kind = RangeError if type(value) is int else DTypeError
    with pytest.raises(kind, match=rf"^{name}: expected an integer >= [12](?: and <= 224)?, got {value!r}$"):
        encoder(**(arguments_of(encoder) | {name: value}))


SWITCHES = [
    (ConvBackbone, "final_pool"),
    (ConvTransformer, "final_pool"),
    (NoiseEncoder, "final_pool"),
    (SelfAttention, "causal"),
    (TransformerBlock, "causal"),
]


@pytest.mark.parametrize(("encoder", "name"), SWITCHES)
@pytest.mark.parametrize("value", ["False", 1, None, nn.Identity()])
def test_switches(encoder, name, value):
    with pytest.raises(DTypeError, match=f"^{name}: expected True or False, got "):
        encoder(**(arguments_of(encoder) | {name: value}))


@pytest.mark.parametrize("encoder", [TransformerBlock, TransformerEncoder, LanguageEncoder, AppearanceEncoder])
@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), "a", True])
def test_dropout(encoder, value):
    with pytest.raises(RangeError if type(value) is float else DTypeError, match=r"^dropout: expected "):
        encoder(**(arguments_of(encoder) | {"dropout": value}))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: ConvBackbone(channels=8), DTypeError, r"channels: expected a list of integers, got 8"),
        (lambda: ConvBackbone(channels=(8, 0.5)), DTypeError, r"channels\[1\]: expected an integer >= 1, got 0.5"),
        (lambda: ConvBackbone(convs_per_stage=(1, -1)), RangeError, r"convs_per_stage\[1\]: expected an integer >= 1"),
        (lambda: ConvBackbone(channels=(), convs_per_stage=()), ConfigError, r"convs_per_stage: expected one entry"),
        (lambda: AppearanceEncoder(16), ConfigError, r"input_size: expected a multiple of 32, got 16"),
        (lambda: AppearanceEncoder(token_patch=2), RangeError, r"token_patch: expected 'all' or 1, got 2"),
        (lambda: AppearanceEncoder(token_patch=True), RangeError, r"token_patch: expected 'all' or 1, got True"),
        (lambda: LanguageEncoder(readout=3), RangeError, r"readout: expected 'last_level' or 'first_level', got 3"),
        (lambda: LanguageEncoder(num_heads=3), ConfigError, r"num_heads: expected a divisor of embed_dim 512, got 3"),
        (lambda: MPVE({}, fusion=None), RangeError, r"fusion: expected .*, got None"),
        (lambda: MPVE({}), ConfigError, r"views: expected at least one, got none"),
        (lambda: MPVE([]), DTypeError, r"views: expected views by name, got list"),
        (lambda: MPVE({"a": nn.Identity()}), DTypeError, r"views.a: expected a bmrl.models.View, got Identity"),
        (
            lambda: MPVE({"a": View(Sobel(), nn.Identity())}, fusion="cross_attention"),
            ConfigError,
            r"views: expected appearance, the query of cross_attention, got a",
        ),
        (
            lambda: View(nn.Identity, nn.Identity()),
            DTypeError,
            r"operator: expected a torch.nn.Module, got the class Identity",
        ),
        (lambda: View(nn.Identity(), torch.sin), DTypeError, r"encoder: expected a torch.nn.Module, got builtin"),
        (
            lambda: Residuals(truncation=0),
            RangeError,
            r"truncation: expected > 0, got 0",
        ),
        (
            lambda: Residuals(truncation="a"),
            DTypeError,
            r"truncation: expected a number",
        ),
        (lambda: tokenize(3), DTypeError, r"texts: expected a sequence of strings, got int"),
        (lambda: tokenize(["a", 3]), DTypeError, r"texts\[1\]: expected a string, got int"),
        (lambda: tokenize(b"a"), DTypeError, r"texts\[0\]: expected a string, got int"),
        (lambda: tokenize(["a"], context_length=1), RangeError, r"context_length: expected an integer >= 2, got 1"),
        (lambda: tokenize([], context_length="a"), DTypeError, r"context_length: expected an integer >= 2, got 'a'"),
        (lambda: color_parsing(3), DTypeError, r"parsing: expected a torch.Tensor, got int"),
        (
            lambda: color_parsing(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(18, 3)),
            ShapeError,
            r"palette: expected classes = 19, got 18",
        ),
        (
            lambda: color_parsing(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(19, 3, dtype=torch.uint8)),
            DTypeError,
            r"palette: expected a floating-point dtype, got torch.uint8",
        ),
        (lambda: build_model({}), DTypeError, r"config: expected a BMRLConfig, got dict"),
    ],
)
def test_the_rest(make, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        make()
