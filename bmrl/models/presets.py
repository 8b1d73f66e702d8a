"""Named configurations, each a function that returns a :class:`BMRLConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from bmrl._fields import Bounds, checked, from_mapping, with_changes
from bmrl._values import described
from bmrl.errors import ConfigError
from bmrl.generators import Generator
from bmrl.models.config import BMRLConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["paper", "recommended", "tiny"]

_NumGenerators = Annotated[int, Bounds(least=1, most=100_000)]

_PAPER: dict[str, Any] = {
    field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    for field in dataclasses.fields(BMRLConfig)
    if field.name != "generators"
}

_TINY: dict[str, Any] = {
    "image_size": 128,
    "noise.patch_size": 128,
    "noise.truncation": 0.04,
    "embed_dim": 128,
    "*.channels": (16, 32, 96, 192, 256),
    "*.convs_per_stage": (1, 1, 2, 2, 2),
    "*.num_blocks": 2,
    "parsing.num_blocks": 1,
    "language.num_blocks": 1,
    "*.num_heads": 4,
    "*.mlp_dim": 256,
    "*.token_patch": 1,
}


_RECOMMENDED: dict[str, Any] = {
    "image_size": 128,
    "embed_dim": 256,
    "appearance": {"kind": "pretrained", "frozen": False, "learning_rate_scale": 1.0, "input_size": 224},
    "edge": None,
    "noise": None,
    "statistics": {},
    "fusion.kind": "concat",
    "head.dropout": 0.1,
    "parsing": None,
    "language": None,
    "decision.score": "neighbors",
    "decision.max_error": 0.05,
}


def paper(
    num_generators: int | None = None, *, generators: Sequence[Generator] | None = None, **changes: Any
) -> BMRLConfig:
    """Return the paper's sizes: 224 px, p = 112, d = 512, 6 blocks per encoder, 308 word tokens.

    Args:
        num_generators: how many classes, named ``generator_0`` onwards; or
        generators: the classes themselves.
        changes: fields of :class:`BMRLConfig`, as :meth:`BMRLConfig.with_changes` takes them; dotted names as
            ``**{"appearance.num_blocks": 2}``.

    Raises:
        ConfigError, RangeError: a change does not fit.
    """
    return _made(num_generators, generators, {}, changes)


def tiny(
    num_generators: int | None = None, *, generators: Sequence[Generator] | None = None, **changes: Any
) -> BMRLConfig:
    """Return a small model of the same structure that trains on two CPU cores in minutes: 128 px, d = 128.

    The noise view shows the whole image, since half of it, 64 px, is too small to show a faint trace, and cuts
    residuals at about 10 of 255 gray levels.

    Arguments and errors as of :func:`paper`.
    """
    own = _TINY | ({"noise.patch_size": changes["image_size"]} if "image_size" in changes else {})
    return _made(num_generators, generators, own, changes)


def recommended(
    num_generators: int | None = None, *, generators: Sequence[Generator] | None = None, **changes: Any
) -> BMRLConfig:
    """Return the model for real pictures that have been recompressed, resized and cropped: 128 px, d = 256.

    An EfficientNet-Lite0 with the weights of ImageNet-1k, trained on, which reads faces enlarged to 224 px, next to
    statistics of the residuals at 128 px; it needs the extra ``[pretrained]``. Its decision, which asks for at most 5 %
    of wrong names, is fitted at the end of the training and takes validation images. How both were chosen, and what was
    tried as well, is in docs/results.md.

    Arguments and errors as of :func:`paper`.
    """
    return _made(num_generators, generators, _RECOMMENDED, changes)


def _made(
    num_generators: int | None,
    generators: Sequence[Generator] | None,
    own: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> BMRLConfig:
    """Return the paper's configuration with a preset's own changes, then with the caller's."""
    classes = {"generators": _generators(num_generators, generators)}
    sizes = with_changes(BMRLConfig, _PAPER, own)
    return from_mapping(BMRLConfig, with_changes(BMRLConfig, sizes, changes) | classes)


def _generators(num_generators: int | None, generators: Sequence[Generator] | None) -> tuple[Generator, ...]:
    """Return ``generators``, or numbered stand-ins until data names them."""
    if (num_generators is None) == (generators is None):
        raise ConfigError("num_generators: expected either num_generators or generators, got both or neither")
    if generators is not None:
        if not isinstance(generators, Iterable):
            raise ConfigError(f"generators: expected a list, got {described(generators)}")
        return tuple(generators)
    num_generators = checked("num_generators", num_generators, _NumGenerators)
    return tuple(
        Generator(name=f"generator_{index}", manipulation="EFS", architecture="GAN") for index in range(num_generators)
    )
