"""Configurations of a model's parts that are no encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from torch import nn

from bmrl._fields import Bounds, Count, Positive, Share, check_fields
from bmrl._values import described
from bmrl.encoders.config import ConvTransformerConfig
from bmrl.encoders.kinds import AnyEncoder  # noqa: TC001 - a field's annotation is read
from bmrl.errors import ConfigError

__all__ = [
    "STANDARD_VIEWS",
    "CustomHeadConfig",
    "CustomViewConfig",
    "DecisionConfig",
    "FusionConfig",
    "HeadConfig",
    "NoiseConfig",
    "check_view_name",
]

STANDARD_VIEWS = ("appearance", "edge", "noise", "statistics")
"""The paper's views, in the order of its section 3.3, and that of statistics."""

_TAKEN = frozenset(dir(nn.ModuleDict())) | {"training", "_orig_mod"}
"""Names of the methods of a ModuleDict, which holds the views, and of what ``torch.compile`` wraps."""

InnerShare = Annotated[float, Bounds(above=0, below=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseConfig:
    """The noise view: SRM residuals of the image's richest patch, and the encoder that reads them."""

    patch_size: Annotated[int, Bounds(least=2)] | None = None
    """Height and width p of the patch in pixels; null means half of ``image_size``, and ``image_size`` shows the whole
    image."""
    patches: Literal["richest", "all"] = "richest"
    """The patch with the most different neighbors (the paper), or all patches side by side, whose embeddings are
    averaged."""
    truncation: Positive = 3.0
    """Residuals are clamped to plus or minus this. Images lie in [0, 1], so that the paper's 3 clamps nothing; a few
    gray levels, such as 10 / 255, keep faint traces and cut strong edges."""
    encoder: AnyEncoder = field(default_factory=lambda: ConvTransformerConfig(final_pool=False))
    """The noise encoder (NE)."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomViewConfig:
    """A view in addition to the standard ones, whose modules the user hands over."""

    name: str
    """What the view is called: a Python identifier."""
    operator: str = ""
    """Class of the module that makes the view of images, for information: it is never imported."""
    encoder: str = ""
    """Class of the module that encodes the view, for information: it is never imported."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_view_name("name", self.name)


def check_view_name(argument: str, name: object) -> None:
    """Check that an extra view may be called so.

    Raises:
        ConfigError: it may not.
    """
    plain = isinstance(name, str) and name.isidentifier() and name.isascii() and len(name) <= 100
    if not plain or name in STANDARD_VIEWS or name in _TAKEN:
        raise ConfigError(
            f"{argument}: expected a Python identifier other than {', '.join(STANDARD_VIEWS)} and the attributes of a "
            f"torch.nn.ModuleDict, got {described(name)}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """How the embeddings of the views become one."""

    kind: Literal["sum", "concat", "cross_attention"] = "sum"
    """``sum`` adds the embeddings of all views (the paper); ``concat`` normalizes each and projects them side by side;
    in ``cross_attention`` that of the appearance view queries all."""
    num_heads: Count = 8
    """Attention heads of the cross-attention; divides ``embed_dim``."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class _AnyHeadConfig:
    kind: str
    """Which head it is."""
    normalize_embedding: bool = True
    """Head, guides and losses act on the L2-normalized embedding."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig(_AnyHeadConfig):
    """The paper's head: one fully connected layer from the embedding to the generators."""

    kind: Literal["linear"] = "linear"
    """Which head it is."""
    norm: bool = True
    """Whether a layer norm precedes the layer."""
    dropout: Share = 0.0
    """Probability of dropping a unit of the embedding before the layer; 0 in the paper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomHeadConfig(_AnyHeadConfig):
    """A head that the user hands over, to ``build_model`` and ``load_model``."""

    kind: Literal["custom"] = "custom"
    """Which head it is."""
    module: str = ""
    """The module's class, for information: it is never imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionConfig:
    """When an image is called unseen. No weight depends on it: it may be edited in a saved ``config.json``."""

    thresholds: tuple[InnerShare, ...] = (0.7, 0.9)
    """Maximum probabilities below which an image is called unseen; the first one decides, reports show all."""
    score: str | None = None
    """The score that decides instead, once it is fitted, by its name in :data:`bmrl.inference.scores.SCORES`; null
    decides by the maximum probability and the first threshold, as the paper does. The other fields are of such a
    score."""
    accept: Share = 0.95
    """Share of seen pictures that are not called unseen."""
    typical: Share = 0.8
    """Share of seen pictures whose score is high enough for a name; an image between the two limits is uncertain."""
    max_error: InnerShare = 0.02
    """Share of seen pictures that may get a wrong name: where the probability is too low for that, an image is
    uncertain."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.thresholds:
            raise ConfigError("thresholds: expected at least one, got none")
        if self.typical > self.accept:
            raise ConfigError(f"typical: expected at most accept {self.accept}, got {self.typical}")
