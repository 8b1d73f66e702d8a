"""Named configurations, each a function that returns a :class:`BMRLConfig`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from bmrl._checks import described
from bmrl._fields import Bounds, checked
from bmrl.errors import ConfigError
from bmrl.generators import Generator
from bmrl.models.config import BMRLConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["paper", "tiny"]

_NumGenerators = Annotated[int, Bounds(least=1, most=100_000)]


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


def paper(
    num_generators: int | None = None, *, generators: Sequence[Generator] | None = None, **changes: Any
) -> BMRLConfig:
    """Return the paper's sizes: 224 px, p = 112, d = 512, 6 blocks an encoder, 308 word tokens.

    Args:
        num_generators: how many classes, named ``generator_0`` onwards; or
        generators: the classes themselves.
        changes: any field of :class:`BMRLConfig`.
    """
    return BMRLConfig(generators=_generators(num_generators, generators), **changes)


def tiny(
    num_generators: int | None = None, *, generators: Sequence[Generator] | None = None, **changes: Any
) -> BMRLConfig:
    """Return a small model of the same structure that trains on two CPU cores in minutes: 128 px, d = 128.

    The noise view shows the whole image, since half of it, 64 px, is too small to show a faint trace, and cuts
    residuals at about 10 of 255 gray levels.

    Args:
        num_generators: how many classes, named ``generator_0`` onwards; or
        generators: the classes themselves.
        changes: any field of :class:`BMRLConfig`.
    """
    sizes: dict[str, Any] = {
        "image_size": 128,
        "patch_size": 128,
        "noise_truncation": 0.04,
        "embed_dim": 128,
        "channels": (16, 32, 96, 192, 256),
        "convs_per_stage": (1, 1, 2, 2, 2),
        "visual_blocks": 2,
        "parsing_blocks": 1,
        "language_blocks": 1,
        "num_heads": 4,
        "mlp_dim": 256,
        "token_patch": 1,
    }
    if "image_size" in changes:
        sizes["patch_size"] = changes["image_size"]
    return BMRLConfig(generators=_generators(num_generators, generators), **(sizes | changes))
