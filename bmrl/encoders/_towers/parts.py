"""What is known about a pretrained network, and how failures of its library are reported."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmrl._text import shown
from bmrl.errors import BMRLError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn

__all__ = ["TowerParts", "building", "unknown_name"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerParts:
    """A network, and the images that its weights were trained on."""

    network: nn.Module
    """Returns a list of feature maps ``(batch, channels, height, width)``, or of one output ``(batch, channels)``."""
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    """Of red, green and blue in [0, 1]; None where the library lists several for this architecture."""
    image_size: int | None
    """The one height and width in pixels that the network takes; None if it takes others."""


def unknown_name(name: str, known: Iterable[str], library: str) -> ConfigError:
    """Return the error for a name that a library does not know, with the one that was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    return ConfigError(
        f"name: expected a model of {library}, got {name!r}" + (f"; did you mean {close[0]}?" if close else "")
    )


@contextlib.contextmanager
def building(name: str, stages: Sequence[int] | None) -> Iterator[None]:
    """Report failures of a library that builds a network, which are of many types, as one type.

    Raises:
        ConfigError: the block failed.
    """
    try:
        yield
    except (BMRLError, ImportError, MemoryError):
        raise
    except Exception as error:
        asked = "any stages" if stages is None else f"the stages {tuple(stages)}"
        reason = "fewer" if isinstance(error, IndexError) else shown(error)
        raise ConfigError(f"stages: expected {name!r} to have {asked}, got {reason}") from error
