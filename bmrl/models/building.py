"""A model is built: from its configuration, and from modules that are handed over in place of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bmrl._values import described
from bmrl.encoders import LanguageEncoder, ParsingEncoder, StatisticsEncoder
from bmrl.encoders.config import (
    ConvTransformerConfig,
    CustomConfig,
    CustomLanguageConfig,
    EncoderConfig,
    LanguageConfig,
    StatisticsConfig,
)
from bmrl.encoders.kinds import build_encoder, options_of
from bmrl.errors import ConfigError, DTypeError, MissingFileError
from bmrl.models.bmrl import BMRL
from bmrl.models.config import BMRLConfig
from bmrl.models.contracts import check_contract, inner_dtype
from bmrl.models.parts import CustomHeadConfig, CustomViewConfig, HeadConfig, NoiseConfig, check_view_name
from bmrl.models.views import PatchResiduals, Pixels, Residuals, View
from bmrl.models.visual import MultiPerspectiveVisualEncoder
from bmrl.ops import ResidualStatistics, Sobel

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BLOCKS", "Blocks", "assembled", "build_model", "class_of", "custom_blocks", "with_custom"]

BLOCKS = ("appearance", "edge", "noise", "statistics", "parsing", "language", "head")
"""Blocks that a module may replace, in addition to the views that may be added."""


@dataclass(frozen=True)
class Blocks:
    """Modules that are handed over in place of what a configuration would build; None is built.

    Raises:
        DTypeError: one is not a module, or a view is not a :class:`~bmrl.models.View`.
        ConfigError: the name of a view is none, or two blocks share a module.
    """

    appearance: nn.Module | None = None
    edge: nn.Module | None = None
    noise: nn.Module | None = None
    statistics: nn.Module | None = None
    views: Mapping[str, View] | None = None
    parsing: nn.Module | None = None
    language: nn.Module | None = None
    head: nn.Module | None = None
    named: dict[str, nn.Module] = field(init=False, default_factory=dict)
    """Those that are given; ``views.NAME`` for views."""

    def __post_init__(self) -> None:
        if self.views is not None and not isinstance(self.views, Mapping):
            raise DTypeError(f"views: expected views by name, got {described(self.views)}")
        for name, view in (self.views or {}).items():
            check_view_name("views", name)
            if not isinstance(view, View):
                raise DTypeError(f"views.{name}: expected a bmrl.models.View, got {described(view)}")
            self.named[f"views.{name}"] = view
        for name in BLOCKS:
            module = getattr(self, name)
            if module is None:
                continue
            if not isinstance(module, nn.Module):
                raise DTypeError(f"{name}: expected a torch.nn.Module, got {described(module)}")
            self.named[name] = module
        owners: dict[int, str] = {}
        for name, module in self.named.items():
            for part in module.modules():
                if (owner := owners.setdefault(id(part), name)) != name:
                    raise ConfigError(f"{name}: expected its own modules, got one of {owner}; copy it with deepcopy")


def build_model(
    config: BMRLConfig,
    *,
    appearance: nn.Module | None = None,
    edge: nn.Module | None = None,
    noise: nn.Module | None = None,
    statistics: nn.Module | None = None,
    views: Mapping[str, View] | None = None,
    parsing: nn.Module | None = None,
    language: nn.Module | None = None,
    head: nn.Module | None = None,
) -> BMRL:
    """Return a model, in training mode, on PyTorch's default device and in its default dtype.

    What is not handed over is built from the configuration and freshly initialized. A module that is handed over
    becomes part of the model as it is, with its weights and device; it is tried with a small batch first. The model's
    configuration says which blocks these are: :func:`load_model` requires them again.

    Args:
        config: the architecture; see :mod:`bmrl.models.presets`.
        appearance: maps ``(batch, 3, s, s)`` images, floating point in [0, 1], to ``(batch, embed_dim)``, where s is
            ``image_size``.
        edge: maps ``(batch, 1, s, s)``, :func:`~bmrl.ops.sobel` of the images, to ``(batch, embed_dim)``.
        noise: maps ``(batch, 3, p, p)``, :func:`~bmrl.ops.srm` of the richest patch, to ``(batch, embed_dim)``, where p
            is ``noise.patch_size``.
        statistics: maps ``(batch, 465)``, :func:`~bmrl.ops.residual_statistics` of the images, to
            ``(batch, embed_dim)``.
        views: more views by name, each a :class:`View`: its operator maps ``(batch, 3, s, s)`` to any tensor, and its
            encoder this one to ``(batch, embed_dim)``.
        parsing: maps ``(batch, s, s)`` uint8 class indices 0..18 to ``(batch, embed_dim)``; used in training only.
        language: maps ``(batch, num_levels, context_length)`` int64 tokens to ``(batch, embed_dim)``; used in training
            only.
        head: maps ``(batch, embed_dim)`` to ``(batch, num_generators)`` logits.

    Raises:
        DTypeError: ``config`` is not a :class:`BMRLConfig`, a block is not a module, has another dtype than the default
            one, or returns something other than a tensor in it; the finished model may be converted as a whole.
        ShapeError: a block returns another shape; the message names it.
        ConfigError: a block fails with the input it gets, shares a module with another, or the configuration requires
            one that was not handed over.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from bmrl.models import presets
        >>> config = presets.tiny(num_generators=7)
        >>> my_encoder = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(3 * 8 * 8, config.embed_dim))
        >>> model = build_model(config, appearance=my_encoder).eval()
        >>> model(torch.zeros(1, 3, 128, 128, dtype=torch.uint8)).probabilities.shape
        torch.Size([1, 7])
    """
    if not isinstance(config, BMRLConfig):
        raise DTypeError(f"config: expected a BMRLConfig, got {described(config)}")
    blocks = Blocks(appearance, edge, noise, statistics, views, parsing, language, head)
    config = with_custom(config, blocks)
    for name, module in blocks.named.items():
        check_contract(name, module, config)
        dtype = inner_dtype(module)
        if dtype not in (None, torch.get_default_dtype()):
            raise DTypeError(f"{name}: expected a module in {torch.get_default_dtype()}, as the others, got {dtype}")
    return assembled(config, blocks)


def assembled(config: BMRLConfig, blocks: Blocks) -> BMRL:
    """Return a model of ``blocks``, which are trusted, and of what the configuration builds.

    Raises:
        ConfigError: the configuration requires a module that ``blocks`` does not hold.
    """
    _check_complete(config, blocks)
    visual_encoder = MultiPerspectiveVisualEncoder(
        dict(_views(config, blocks)),
        image_size=config.image_size,
        fusion=config.fusion.kind,
        embed_dim=config.embed_dim,
        num_heads=config.fusion.num_heads,
    )
    head = blocks.head if blocks.head is not None else _head(config)
    parsing = blocks.parsing if blocks.parsing is not None or config.parsing is None else _parsing_encoder(config)
    language = blocks.language if blocks.language is not None or config.language is None else _language_encoder(config)
    return BMRL(
        config,
        visual_encoder,
        head,
        parsing_encoder=parsing,
        language_encoder=language,
        predictor=None if language is None else nn.Linear(config.embed_dim, config.embed_dim),
    )


def custom_blocks(config: BMRLConfig) -> dict[str, str]:
    """Return the blocks that must be handed over, and the class that each had."""
    parts: dict[str, Any] = {name: getattr(config, name) for name in BLOCKS}
    if config.noise is not None:
        parts["noise"] = config.noise.encoder
    found = {name: part.module for name, part in parts.items() if part is not None and part.kind == "custom"}
    return found | {
        f"views.{view.name}": " and ".join(filter(None, (view.operator, view.encoder))) for view in config.views
    }


def class_of(module: nn.Module) -> str:
    """Return the full name of a module's class; of what ``torch.compile`` wraps, if it does."""
    module = getattr(module, "_orig_mod", module)
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _check_complete(config: BMRLConfig, blocks: Blocks) -> None:
    for name, kind in custom_blocks(config).items():
        if name not in blocks.named:
            was = f" ({kind})" if kind else ""
            raise ConfigError(f"{name}: expected the module that the configuration calls custom{was}, got none")


def with_custom(config: BMRLConfig, blocks: Blocks) -> BMRLConfig:
    """Return the configuration with the blocks that are handed over marked as such, by the classes that they have."""
    changes: dict[str, Any] = {
        name: CustomConfig(module=class_of(module))
        for name, module in blocks.named.items()
        if name in ("appearance", "edge", "statistics", "parsing")
    }
    if blocks.noise is not None:
        changes["noise"] = dataclasses.replace(
            config.noise or NoiseConfig(), encoder=CustomConfig(module=class_of(blocks.noise))
        )
    if blocks.head is not None:
        normalize = config.head.normalize_embedding
        changes["head"] = CustomHeadConfig(normalize_embedding=normalize, module=class_of(blocks.head))
    if blocks.language is not None:
        read = config.language or LanguageConfig()
        sizes = {name: getattr(read, name) for name in ("vocab_size", "context_length", "num_levels")}
        changes["language"] = CustomLanguageConfig(**sizes, module=class_of(blocks.language))
    if blocks.views:
        added = {
            name: CustomViewConfig(name=name, operator=class_of(view.operator), encoder=class_of(view.encoder))
            for name, view in blocks.views.items()
        }
        changes["views"] = tuple(({view.name: view for view in config.views} | added).values())
    return dataclasses.replace(config, **changes)


def _views(config: BMRLConfig, blocks: Blocks) -> Iterator[tuple[str, View]]:
    """Yield all views in order: the standard ones, then those that were added."""
    size, width = config.image_size, config.embed_dim

    def encoder(name: str, own: nn.Module | None, part: EncoderConfig, channels: int, side: int) -> nn.Module:
        if own is not None:
            return own
        try:
            return build_encoder(part, channels, side, width)
        except (ConfigError, MissingFileError) as error:  # of a field, such as the name of a pretrained network
            raise type(error)(f"{name}.{error}") from error

    if config.appearance is not None:
        yield "appearance", View(Pixels(), encoder("appearance", blocks.appearance, config.appearance, 3, size))
    if config.edge is not None:
        yield "edge", View(Sobel(), encoder("edge", blocks.edge, config.edge, 1, size))
    if config.noise is not None:
        side = config.noise.patch_size
        assert side is not None
        operator = {"richest": Residuals, "all": PatchResiduals}[config.noise.patches]
        noise = encoder("noise.encoder", blocks.noise, config.noise.encoder, 3, side)
        yield "noise", View(operator(side, config.noise.truncation), noise)
    if config.statistics is not None:
        yield "statistics", View(ResidualStatistics(), blocks.statistics or _statistics_encoder(config))
    for view in config.views:
        yield view.name, (blocks.views or {})[view.name]


def _head(config: BMRLConfig) -> nn.Sequential:
    assert isinstance(config.head, HeadConfig)
    return nn.Sequential(
        nn.LayerNorm(config.embed_dim) if config.head.norm else nn.Identity(),
        nn.Dropout(config.head.dropout),
        nn.Linear(config.embed_dim, config.num_generators),
    )


def _statistics_encoder(config: BMRLConfig) -> StatisticsEncoder:
    assert isinstance(config.statistics, StatisticsConfig)
    return StatisticsEncoder(embed_dim=config.embed_dim, **options_of(config.statistics))


def _parsing_encoder(config: BMRLConfig) -> ParsingEncoder:
    assert isinstance(config.parsing, ConvTransformerConfig)
    return ParsingEncoder(config.image_size, embed_dim=config.embed_dim, **options_of(config.parsing))


def _language_encoder(config: BMRLConfig) -> LanguageEncoder:
    assert isinstance(config.language, LanguageConfig)
    return LanguageEncoder(config.embed_dim, **options_of(config.language))
