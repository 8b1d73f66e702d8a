"""Each field of the configuration, of every part, changes what it names, and nothing else is needed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import nn

from bmrl._fields import field_docs
from bmrl.encoders import ConvTransformer, SelfAttention, StatisticsEncoder
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


def view(model: BMRL, name: str) -> Any:
    return model.visual_encoder.views[name].encoder


def views(model: BMRL) -> list[str]:
    return list(model.visual_encoder.views)


def widths_of_convolutions(encoder: ConvTransformer) -> tuple[int, ...]:
    return tuple(layer.out_channels for layer in parts(encoder, nn.Conv2d))  # type: ignore[arg-type]


def widths(model: BMRL) -> set[int]:
    return {embedding.shape[1] for embedding in (model(IMAGES).embedding, model.language_encoder(TOKENS))}


def dropouts(part: nn.Module) -> set[float]:
    return {layer.p for layer in part.modules() if isinstance(layer, nn.Dropout)}


def takes(model: BMRL, size: int) -> bool:
    try:
        model(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except ShapeError:
        return False
    return True


def is_unit(model: BMRL) -> bool:
    return torch.allclose(model(IMAGES).embedding.norm(dim=-1), torch.ones(2))


def mlp_widths(encoder: nn.Module) -> set[int]:
    return every(encoder, TransformerBlock, lambda part: part.mlp[0].out_features)  # type: ignore[arg-type]


def heads(part: nn.Module) -> set[int]:
    kinds = SelfAttention | nn.MultiheadAttention
    return every(part, kinds, lambda layer: layer.num_heads)  # type: ignore[arg-type]


def tokens_read(model: BMRL) -> list[bool]:
    """Which levels of the prompt reach the language embedding."""
    before = model.language_encoder(TOKENS)
    reached = []
    for level in range(4):
        changed = TOKENS.clone()
        changed[:, level, 1] = 9
        reached.append(not torch.equal(model.language_encoder(changed), before))
    return reached


def hidden_layers(model: BMRL) -> list[nn.Linear]:
    return [part.hidden for part in parts(model, StatisticsEncoder)]


def is_sum(model: BMRL) -> bool:
    encoder = model.visual_encoder
    edge, noise, appearance = (view(model, name) for name in ("edge", "noise", "appearance"))
    edge.register_forward_hook(lambda *_: torch.zeros(2, 16))
    noise.register_forward_hook(lambda *_: torch.zeros(2, 16))
    appearance.register_forward_hook(lambda *_: torch.ones(2, 16))
    return torch.equal(encoder(IMAGES), torch.ones(2, 16))


def noise_is_within(model: BMRL) -> float:
    seen = []
    view(model, "noise").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max().item()))
    model(IMAGES)
    return round(seen[0], 6)


def noise_inputs(model: BMRL) -> tuple[int, ...]:
    seen = []
    view(model, "noise").register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    model(IMAGES)
    return seen[0]


def noise_side(model: BMRL) -> tuple[int, ...]:
    seen = []
    view(model, "noise").register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    model(IMAGES)
    return seen[0]


EFFECTS = {
    "generators": Effect({"generators": TWO}, lambda m: m(IMAGES).probabilities.shape[1], 2),
    "image_size": Effect({"image_size": 64}, lambda m: (takes(m, 64), takes(m, 32)), (True, False)),
    "embed_dim": Effect({"embed_dim": 24}, widths, {24}),
    "appearance": Effect({"appearance": None}, views, ["edge", "noise"]),
    "edge": Effect({"edge": None}, views, ["appearance", "noise"]),
    "noise": Effect({"noise": None}, views, ["appearance", "edge"]),
    "noise.patches": Effect({"noise.patches": "all", "noise.patch_size": 8}, noise_inputs, (32, 3, 8, 8)),
    "noise.patch_size": Effect({"noise.patch_size": 8}, noise_side, (8, 8)),
    "noise.truncation": Effect({"noise.truncation": 0.125}, noise_is_within, 0.125),
    "statistics": Effect({"statistics": {}}, views, ["appearance", "edge", "noise", "statistics"]),
    "statistics.hidden_dim": Effect(
        {"statistics": {"hidden_dim": 20}}, lambda m: [layer.out_features for layer in hidden_layers(m)], [20]
    ),
    "statistics.dropout": Effect(
        {"statistics": {"dropout": 0.25}}, lambda m: [dropouts(part) for part in parts(m, StatisticsEncoder)], [{0.25}]
    ),
    "fusion.kind": Effect({"fusion.kind": "cross_attention"}, is_sum, False),
    "fusion.num_heads": Effect(
        {"fusion.num_heads": 2, "fusion.kind": "cross_attention"}, lambda m: heads(m.visual_encoder) - {4}, {2}
    ),
    "head.norm": Effect({"head.norm": False}, lambda m: type(m.head[0]), nn.Identity),
    "head.dropout": Effect({"head.dropout": 0.25}, lambda m: dropouts(m.head), {0.25}),
    "head.normalize_embedding": Effect({"head.normalize_embedding": False}, is_unit, False),
    "parsing": Effect({"parsing": None}, lambda m: m.parsing_encoder, None),
    "language": Effect({"language": None}, lambda m: (m.language_encoder, m.predictor), (None, None)),
    "language.readout": Effect({"language.readout": "first_level"}, tokens_read, [True, False, False, False]),
    "language.vocab_size": Effect(
        {"language.vocab_size": 77}, lambda m: m.language_encoder.word_embedding.num_embeddings, 77
    ),
    "language.context_length": Effect(
        {"language.context_length": 9}, lambda m: m.language_encoder.position_embedding.shape[0], 36
    ),
    "language.num_levels": Effect(
        {"language.num_levels": 2}, lambda m: m.language_encoder.position_embedding.shape[0], 12
    ),
    "decision.thresholds": Effect({"decision.thresholds": (0.25,)}, lambda m: m.config.decision.thresholds, (0.25,)),
    "decision.score": Effect({"decision.score": "energy"}, lambda m: m.config.decision.score, "energy"),
    "decision.accept": Effect({"decision.accept": 0.9}, lambda m: m.config.decision.accept, 0.9),
    "decision.typical": Effect({"decision.typical": 0.7}, lambda m: m.config.decision.typical, 0.7),
    "decision.max_error": Effect({"decision.max_error": 0.1}, lambda m: m.config.decision.max_error, 0.1),
}

ENCODERS: dict[str, Callable[[BMRL], Any]] = {
    "appearance": lambda m: view(m, "appearance"),
    "edge": lambda m: view(m, "edge"),
    "noise.encoder": lambda m: view(m, "noise"),
    "parsing": lambda m: m.parsing_encoder,
    "language": lambda m: m.language_encoder,
}
OF_TRANSFORMERS = {
    "num_blocks": (3, blocks),
    "num_heads": (2, heads),
    "mlp_dim": (20, mlp_widths),
    "dropout": (0.25, dropouts),
}
OF_BACKBONES = {
    "channels": ((2, 3, 5), widths_of_convolutions),
    "convs_per_stage": ((1, 3, 2), widths_of_convolutions),
    "token_patch": ("all", lambda encoder: encoder.transformer.num_tokens),
    "final_pool": (None, lambda encoder: encoder.backbone.stride),
}
SEEN = {"num_heads": {2}, "mlp_dim": {20}, "dropout": {0.25}, "convs_per_stage": (4, 6, 6, 6, 8, 8), "token_patch": 1}
for part, find in ENCODERS.items():
    for name, (value, see) in (OF_TRANSFORMERS | (OF_BACKBONES if part != "language" else {})).items():
        if name == "final_pool":
            value, expected = (True, 8) if part == "noise.encoder" else (False, 4)
        else:
            expected = SEEN.get(name, value)
        EFFECTS[f"{part}.{name}"] = Effect({f"{part}.{name}": value}, lambda m, f=find, s=see: s(f(m)), expected)


def test_every_field_is_in_the_table():
    entries = [entry for entry in field_docs(BMRLConfig) if not entry.doc.endswith("(kind pretrained)")]
    names = {entry.name for entry in entries}  # those of pretrained networks: test_pretrained
    of_others = {name for name in names if name.endswith((".kind", ".module")) or name.startswith("views")}
    wholes = {"fusion", "head", "decision", "noise.encoder"}
    assert set(EFFECTS) - {"fusion.kind"} == names - of_others - wholes


@pytest.mark.parametrize("field", EFFECTS)
def test_a_field_changes_what_it_names(make_model, field):
    changes, see, expected = EFFECTS[field]
    assert see(make_model()) != expected
    assert see(make_model(**changes)) == expected
