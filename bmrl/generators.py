"""Generators of faces and the families they belong to: plain data, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bmrl._checks import described
from bmrl._fields import check_fields
from bmrl.errors import ConfigError

__all__ = ["ARCHITECTURES", "MANIPULATIONS", "NAME_RULE", "Architecture", "Generator", "Manipulation", "is_name"]

Manipulation = Literal["none", "EFS", "FS", "AM"]
Architecture = Literal["none", "GAN", "diffusion"]
MANIPULATIONS: tuple[str, ...] = get_args(Manipulation)
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
LONGEST_NAME = 100
NAME_RULE = f"1 to {LONGEST_NAME} printable characters without outer spaces"


def is_name(text: str) -> bool:
    """Whether a generator may be called so: names stand in terminals, prompts, file names and files of labels."""
    return text == text.strip() and text.isprintable() and 0 < len(text) <= LONGEST_NAME


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator:
    """One class: a generator of faces, or a source of photographs.

    Args:
        name: what the class is called in every table: up to 100 printable characters, no space at either end.
        manipulation: ``"EFS"`` entire face synthesis, ``"FS"`` face swap, ``"AM"`` attribute manipulation;
            ``"none"`` for photographs.
        architecture: ``"GAN"`` or ``"diffusion"``; ``"none"`` for photographs.

    Raises:
        RangeError: a family is not in the lists above.
        ConfigError: no such name, or only one of the two families is ``"none"``.
    """

    name: str
    manipulation: Manipulation
    architecture: Architecture

    def __post_init__(self) -> None:
        check_fields(self)
        if not is_name(self.name):
            raise ConfigError(f"name: expected {NAME_RULE}, got {described(self.name)}")
        if (self.manipulation == "none") != (self.architecture == "none"):
            raise ConfigError(
                f"architecture: expected 'none' exactly when manipulation is 'none' (a photograph), got "
                f"manipulation {self.manipulation!r} with architecture {self.architecture!r} for {self.name!r}"
            )

    @property
    def is_real(self) -> bool:
        """Whether the class holds photographs."""
        return self.manipulation == "none"
