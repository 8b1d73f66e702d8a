"""Small encoders, each with inputs that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from bmrl.encoders import (
    AppearanceEncoder,
    EdgeEncoder,
    LanguageEncoder,
    NoiseEncoder,
    ParsingEncoder,
    PretrainedEncoder,
    StatisticsEncoder,
)
from bmrl.models import MultiPerspectiveVisualEncoder, paper_views

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {
    "embed_dim": 16,
    "channels": (4, 6, 8),
    "convs_per_stage": (1, 2, 1),
    "num_blocks": 2,
    "num_heads": 4,
    "mlp_dim": 24,
}
TEXT = {"embed_dim": 16, "vocab_size": 50, "context_length": 6, "num_blocks": 2, "num_heads": 4, "mlp_dim": 24}


@dataclass(frozen=True)
class Case:
    """An encoder, how to build it, and how to draw a batch for it."""

    build: Callable[[], nn.Module]
    draw: Callable[[int], Tensor]


def texts(batch: int, *, levels: int = 4, length: int = 6) -> Tensor:
    """Random prompts as CLIP writes them: start 48, words, end 49 (the largest id), zeros."""
    tokens = torch.zeros(batch, levels, length, dtype=torch.int64)
    for row in tokens.flatten(0, 1):
        words = int(torch.randint(1, length - 1, ()))
        row[0] = 48
        row[1 : 1 + words] = torch.randint(1, 48, (words,))
        row[1 + words] = 49
    return tokens


def visual(*names: str, fusion: str = "sum", **options: int) -> Case:
    """The encoder of some of the paper's views, or of all."""

    def build() -> nn.Module:
        views = paper_views(32, **SMALL, **options)
        chosen = {name: view for name, view in views.items() if not names or name in names}
        return MultiPerspectiveVisualEncoder(chosen, image_size=32, embed_dim=16, num_heads=4, fusion=fusion)

    return Case(
        build,
        lambda batch: torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8),
    )


def pretrained(name: str, **options: object) -> Case:
    return Case(
        lambda: PretrainedEncoder(name, 48, embed_dim=16, weights=None, frozen=False, **options),
        lambda batch: torch.rand(batch, 3, 48, 48),
    )


CASES = {
    "appearance": Case(lambda: AppearanceEncoder(32, **SMALL), lambda b: torch.rand(b, 3, 32, 32)),
    "appearance, a token per position": Case(
        lambda: AppearanceEncoder(32, token_patch=1, **SMALL), lambda b: torch.rand(b, 3, 32, 32)
    ),
    "edge": Case(lambda: EdgeEncoder(24, **SMALL), lambda b: torch.rand(b, 1, 24, 24)),
    "noise": Case(lambda: NoiseEncoder(16, token_patch=1, **SMALL), lambda b: torch.randn(b, 3, 16, 16)),
    "parsing": Case(
        lambda: ParsingEncoder(32, **SMALL), lambda b: torch.randint(0, 19, (b, 32, 32), dtype=torch.uint8)
    ),
    "language": Case(lambda: LanguageEncoder(**TEXT), texts),
    "language, first level": Case(lambda: LanguageEncoder(readout="first_level", **TEXT), texts),
    "pretrained, pooled": pretrained("test_efficientnet"),
    "pretrained, tokens": pretrained("test_vit", pooling="tokens", num_blocks=1, num_heads=4, mlp_dim=24),
    "pretrained, with constants": pretrained("test_vit_relpos", pooling="output"),
    "statistics": Case(lambda: StatisticsEncoder(7, embed_dim=16, hidden_dim=12), lambda b: torch.randn(b, 7)),
    "pretrained, enlarged": pretrained("test_efficientnet", input_size=64),
    "visual, sum": visual(),
    "visual, cross-attention": visual(fusion="cross_attention"),
    "visual, side by side": visual(fusion="concat"),
    "visual, small patch": visual(patch_size=12),
    "visual, appearance alone": visual("appearance"),
    "visual, edge and noise": visual("edge", "noise"),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each encoder in turn."""
    torch.manual_seed(0)
    return CASES[request.param]
