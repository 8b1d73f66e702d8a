"""The configuration of a BMRL model: a tree of plain data, checked when it is made, saved as ``config.json``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from bmrl._fields import Count, Kinds, check_fields, from_mapping, with_changes
from bmrl._values import described
from bmrl.encoders.config import (
    ConvTransformerConfig,
    CustomConfig,
    CustomLanguageConfig,
    EncoderConfig,
    LanguageConfig,
    StatisticsConfig,
    check_heads,
)
from bmrl.encoders.kinds import AnyEncoder  # noqa: TC001 - a field's annotation is read
from bmrl.errors import ConfigError
from bmrl.generators import Generator  # noqa: TC001 - a field's annotation is read
from bmrl.models.parts import (
    STANDARD_VIEWS,
    CustomHeadConfig,
    CustomViewConfig,
    DecisionConfig,
    FusionConfig,
    HeadConfig,
    NoiseConfig,
)
from bmrl.ops.statistics import LEAST_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["BMRLConfig"]

Head = Annotated[HeadConfig | CustomHeadConfig, Kinds({"linear": HeadConfig, "custom": CustomHeadConfig})]
Parsing = Annotated[EncoderConfig, Kinds({"conv_transformer": ConvTransformerConfig, "custom": CustomConfig})]
Statistics = Annotated[EncoderConfig, Kinds({"residual_statistics": StatisticsConfig, "custom": CustomConfig})]
Language = Annotated[
    LanguageConfig | CustomLanguageConfig, Kinds({"transformer": LanguageConfig, "custom": CustomLanguageConfig})
]


@dataclass(frozen=True, kw_only=True, slots=True)
class BMRLConfig:
    """Everything that decides a model's architecture. Defaults are the paper's (section 4.1).

    A part is given as its dataclass or as a mapping of its fields; ``None`` turns a view or a guide off. The rows of
    Tables 6 and 8 are ``edge=None, noise=None, parsing=None, language=None`` (CViT) and ``edge=None, parsing=None``
    (MFCLIP).

    Raises:
        ConfigError: a value of another type or out of its range, or values that do not fit together; the message gives
            the dotted name of the field, such as ``appearance.num_blocks``.
        RangeError: a value is none of its choices.

    Example:
        >>> from bmrl.models import presets
        >>> config = presets.tiny(num_generators=7, edge=None).with_changes({"*.num_blocks": 1, "head.dropout": 0.1})
        >>> config.appearance.num_blocks, config.noise.encoder.num_blocks, config.head.dropout, config.edge
        (1, 1, 0.1, None)
    """

    generators: tuple[Generator, ...]
    """The classes, in the order of the logits."""
    image_size: Count = 224
    """Height and width of the input in pixels; a multiple of 2 per stage of the backbones."""
    embed_dim: Count = 512
    """Width d of every embedding."""
    appearance: AnyEncoder | None = field(default_factory=ConvTransformerConfig)
    """The encoder of the image itself (AE)."""
    edge: AnyEncoder | None = field(default_factory=ConvTransformerConfig)
    """The encoder of the Sobel magnitude (EE)."""
    noise: NoiseConfig | None = field(default_factory=NoiseConfig)
    """The noise view and its encoder (NE)."""
    statistics: Statistics | None = None
    """The encoder of :func:`~bmrl.ops.residual_statistics` of the whole image, a view that the paper does not have."""
    views: tuple[CustomViewConfig, ...] = ()
    """More views, whose modules are handed over; :func:`~bmrl.models.build_model` writes them here."""
    fusion: FusionConfig = field(default_factory=FusionConfig)
    """How the embeddings of the views become one."""
    head: Head = field(default_factory=HeadConfig)
    """What turns the embedding into logits."""
    parsing: Parsing | None = field(default_factory=ConvTransformerConfig)
    """The encoder of face-parsing maps (PE), which guides the training."""
    language: Language | None = field(default_factory=LanguageConfig)
    """The encoder of prompts (LE), which guides the training with a predictor of its embedding."""
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    """When an image is called unseen."""

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_generators()
        if self.noise is not None and self.noise.patch_size is None:
            object.__setattr__(self, "noise", dataclasses.replace(self.noise, patch_size=max(self.image_size // 2, 2)))
        self._check_views()
        for name, part, size_name, size in self._encoders():
            if size % part.stride or not size:
                raise ConfigError(f"{size_name}: expected a multiple of {part.stride}, as {name} needs it, got {size}")
            if part.reads_images_alone and name != "appearance":
                raise ConfigError(f"{name}.kind: expected one that reads this view, got {part.kind!r}, for RGB images")
            _check_embed_dim(name, part.check_embed_dim, self.embed_dim)
        if isinstance(self.language, LanguageConfig):
            _check_embed_dim("language", self.language.check_embed_dim, self.embed_dim)
        if self.fusion.kind == "cross_attention":
            _check_embed_dim("fusion", lambda width: check_heads(self.fusion.num_heads, width), self.embed_dim)

    def _encoders(self) -> Iterator[tuple[str, EncoderConfig, str, int]]:
        """Yield name, configuration, the name of the input's size and the size of each encoder of pictures."""
        for name, part in (("appearance", self.appearance), ("edge", self.edge), ("parsing", self.parsing)):
            if part is not None:
                yield name, part, "image_size", self.image_size
        if self.noise is not None:
            assert self.noise.patch_size is not None
            yield "noise.encoder", self.noise.encoder, "noise.patch_size", self.noise.patch_size

    def _check_generators(self) -> None:
        if not self.generators:
            raise ConfigError("generators: expected at least one, got none")
        counts = Counter(generator.name for generator in self.generators)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise ConfigError(f"generators: expected distinct names, got {', '.join(repeated)} more than once")

    def _check_views(self) -> None:
        names = [view.name for view in self.views]
        if len(set(names)) < len(names):
            raise ConfigError(f"views: expected distinct names, got {', '.join(names)}")
        if not self.views and all(getattr(self, name) is None for name in STANDARD_VIEWS):
            raise ConfigError(f"{', '.join(STANDARD_VIEWS)}: expected at least one view that is on, got none")
        if self.statistics is not None and self.image_size < LEAST_SIZE:
            raise ConfigError(
                f"image_size: expected at least {LEAST_SIZE}, as statistics needs it, got {self.image_size}"
            )
        if self.fusion.kind == "cross_attention" and self.appearance is None:
            raise ConfigError("appearance: expected a view that is on, the query of cross_attention, got None")
        patch = None if self.noise is None else self.noise.patch_size
        if patch is not None and patch > self.image_size:
            raise ConfigError(f"noise.patch_size: expected at most image_size {self.image_size}, got {patch}")

    @property
    def num_generators(self) -> int:
        """The number of classes x."""
        return len(self.generators)

    @property
    def num_layers(self) -> int:
        """A lower bound of the layers of all encoders, each of which has its own tensor."""
        language = self.language.num_blocks if isinstance(self.language, LanguageConfig) else 0
        return language + sum(part.num_layers for _, part, _, _ in self._encoders())

    def with_changes(self, changes: Mapping[str, Any] | None = None, /, **fields: Any) -> BMRLConfig:
        """Return a configuration that differs in some fields.

        Args:
            changes: values by dotted name, such as ``{"appearance.num_blocks": 2, "edge": None}``. ``*.dropout`` is the
                field of this name in every part that has one; a more exact name overrides it. A mapping changes the
                fields of a part that it names, and a new ``kind`` begins with its defaults.
            fields: the same, for names without a dot.

        Raises:
            ConfigError: a name is not a field, a field of a part that is off, or a value does not fit.
            RangeError: a value is none of its choices.
        """
        if changes is not None and not hasattr(changes, "items"):
            raise ConfigError(f"changes: expected fields by name, got {described(changes)}")
        return from_mapping(BMRLConfig, with_changes(BMRLConfig, self.to_dict(), dict(changes or {}) | fields))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold; the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BMRLConfig:
        """Make a configuration from plain data.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(data, dict):
            raise ConfigError(f"model: expected fields by name, got {described(data)}")
        return from_mapping(cls, data)


def _check_embed_dim(name: str, check: Any, embed_dim: int) -> None:
    try:
        check(embed_dim)
    except ConfigError as error:
        raise ConfigError(f"{name}.{error}") from error
