"""Each field of the configuration changes what it names, and nothing else is needed for it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import nn

from bmrl.encoders import ConvBackbone, SelfAttention
from bmrl.encoders.transformer import TransformerBlock
from bmrl.errors import ShapeError
from bmrl.generators import Generator
from bmrl.models import BMRL, BMRLConfig

if TYPE_CHECKING:
    from collections.abc import Callable

VIEWS = ("appearance", "edge", "noise")
IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[[48, 1 + level, 49, 0, 0, 0] for level in range(4)]] * 2)
TWO = tuple(Generator(name=name, manipulation="EFS", architecture="GAN") for name in ("a", "b"))


class Effect(NamedTuple):
    """A change of one field (and of those that must go with it), and what is then seen of the model."""

    changes: dict[str, Any]
    see: Callable[[BMRL], Any]
    expected: Any


def parts(model: BMRL, kind: type) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, kind)]


def every(model: BMRL, kind: type, see: Callable[[Any], Any]) -> set[Any]:
    return {see(part) for part in parts(model, kind)}


def blocks(encoder: nn.Module) -> int:
    return len(parts(encoder, TransformerBlock))  # type: ignore[arg-type]


def views(model: BMRL) -> list[Any]:
    return [getattr(model.visual_encoder, view) for view in VIEWS]


def convolutions(model: BMRL, see: Callable[[nn.Conv2d], Any]) -> set[tuple[Any, ...]]:
    return every(model, ConvBackbone, lambda backbone: tuple(see(layer) for layer in parts(backbone, nn.Conv2d)))


def widths(model: BMRL) -> set[int]:
    return {embedding.shape[1] for embedding in (model(IMAGES).embedding, model.language_encoder(TOKENS))}


def dropouts(model: BMRL) -> set[float]:
    assert isinstance(model.head[1], nn.Dropout)
    return every(model, nn.Dropout, lambda part: part.p)


def numbers_of_tokens(model: BMRL) -> list[int]:
    return [view.transformer.num_tokens for view in views(model)]


def takes(model: BMRL, size: int) -> bool:
    try:
        model(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except ShapeError:
        return False
    return True


def is_unit(model: BMRL) -> bool:
    return torch.allclose(model(IMAGES).embedding.norm(dim=-1), torch.ones(2))


def mlp_widths(model: BMRL) -> set[int]:
    return every(model, TransformerBlock, lambda part: part.mlp[0].out_features)


def tokens_read(model: BMRL) -> list[bool]:
    """Which levels of the prompt reach the language embedding."""
    before = model.language_encoder(TOKENS)
    reached = []
    for level in range(4):
        changed = TOKENS.clone()
        changed[:, level, 1] = 9
        reached.append(not torch.equal(model.language_encoder(changed), before))
    return reached


def is_sum(model: BMRL) -> bool:
    encoder = model.visual_encoder
    encoder.edge.register_forward_hook(lambda *_: torch.zeros(2, 16))
    encoder.noise.register_forward_hook(lambda *_: torch.zeros(2, 16))
    encoder.appearance.register_forward_hook(lambda *_: torch.ones(2, 16))
    return torch.equal(encoder(IMAGES), torch.ones(2, 16))


def noise_is_within(model: BMRL) -> float:
    seen = []
    model.visual_encoder.noise.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max().item()))
    model(IMAGES)
    return round(seen[0], 6)


def noise_side(model: BMRL) -> tuple[int, ...]:
    seen = []
    model.visual_encoder.noise.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    model(IMAGES)
    return seen[0]


EFFECTS = {
    "generators": Effect({"generators": TWO}, lambda m: m(IMAGES).probabilities.shape[1], 2),
    "image_size": Effect({"image_size": 64, "patch_size": 16}, lambda m: (takes(m, 64), takes(m, 32)), (True, False)),
    "patch_size": Effect({"patch_size": 8}, noise_side, (8, 8)),
    "embed_dim": Effect({"embed_dim": 24}, widths, {24}),
    "channels": Effect({"channels": (2, 3, 5)}, lambda m: convolutions(m, lambda c: c.out_channels), {(2, 3, 5)}),
    "convs_per_stage": Effect(
        {"convs_per_stage": (1, 3, 2)}, lambda m: convolutions(m, lambda c: c.out_channels), {(4, 6, 6, 6, 8, 8)}
    ),
    "visual_blocks": Effect({"visual_blocks": 3}, lambda m: [blocks(view) for view in views(m)], [3, 3, 3]),
    "parsing_blocks": Effect({"parsing_blocks": 3}, lambda m: blocks(m.parsing_encoder), 3),
    "language_blocks": Effect({"language_blocks": 3}, lambda m: blocks(m.language_encoder), 3),
    "num_heads": Effect(
        {"num_heads": 2, "fusion": "cross_attention"},
        lambda m: every(m, SelfAttention | nn.MultiheadAttention, lambda part: part.num_heads),  # type: ignore[arg-type]
        {2},
    ),
    "mlp_dim": Effect({"mlp_dim": 20}, mlp_widths, {20}),
    "dropout": Effect({"dropout": 0.25}, dropouts, {0.25}),
    "token_patch": Effect({"token_patch": "all"}, numbers_of_tokens, [1, 1, 1]),
    "fusion": Effect({"fusion": "cross_attention"}, is_sum, False),
    "appearance": Effect({"appearance": False}, lambda m: m.visual_encoder.appearance, None),
    "edge": Effect({"edge": False}, lambda m: m.visual_encoder.edge, None),
    "noise": Effect({"noise": False}, lambda m: m.visual_encoder.noise, None),
    "noise_truncation": Effect({"noise_truncation": 0.125}, noise_is_within, 0.125),
    "parsing": Effect({"parsing": False}, lambda m: m.parsing_encoder, None),
    "language": Effect({"language": False}, lambda m: (m.language_encoder, m.predictor), (None, None)),
    "readout": Effect({"readout": "first_level"}, tokens_read, [True, False, False, False]),
    "vocab_size": Effect({"vocab_size": 77}, lambda m: m.language_encoder.word_embedding.num_embeddings, 77),
    "context_length": Effect({"context_length": 9}, lambda m: m.language_encoder.position_embedding.shape[0], 36),
    "num_levels": Effect({"num_levels": 2}, lambda m: m.language_encoder.position_embedding.shape[0], 12),
    "normalize_embedding": Effect({"normalize_embedding": False}, is_unit, False),
    "head_norm": Effect({"head_norm": False}, lambda m: type(m.head[0]), nn.Identity),
    "thresholds": Effect({"thresholds": (0.25,)}, lambda m: m.config.thresholds, (0.25,)),
}


def test_every_field_is_in_the_table():
    assert set(EFFECTS) == {field.name for field in dataclasses.fields(BMRLConfig)}


@pytest.mark.parametrize("field", EFFECTS)
def test_a_field_changes_what_it_names(make_model, field):
    changes, see, expected = EFFECTS[field]
    assert see(make_model()) != expected
    generators = changes.get("generators")
    changed = make_model(**changes) if generators is None else make_model(num_generators=None, **changes)
    assert see(changed) == expected
