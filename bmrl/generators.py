"""Generators of faces and the families they belong to: plain data, without PyTorch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from bmrl._fields import check_fields
from bmrl._values import described
from bmrl.errors import ConfigError, RangeError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ARCHITECTURES",
    "ARCHITECTURE_NAMES",
    "MANIPULATIONS",
    "MANIPULATION_NAMES",
    "NAME_RULE",
    "Architecture",
    "Generator",
    "Manipulation",
    "check_family",
    "is_name",
]

Manipulation = Literal["none", "EFS", "FS", "AM", "FR"]
Architecture = Literal["none", "GAN", "diffusion", "flow", "autoregressive", "autoencoder", "graphics", "unknown"]
MANIPULATIONS: tuple[Manipulation, ...] = get_args(Manipulation)
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

MANIPULATION_NAMES: dict[Manipulation, str] = {
    "none": "photograph",
    "EFS": "entire face synthesis",
    "FS": "face swap",
    "AM": "attribute manipulation",
    "FR": "face reenactment",
}
"""Each manipulation in words, as reports show it."""

ARCHITECTURE_NAMES: dict[Architecture, str] = {
    "none": "camera",
    "GAN": "generative adversarial network",
    "diffusion": "diffusion model",
    "flow": "normalizing flow or flow matching",
    "autoregressive": "autoregressive model",
    "autoencoder": "autoencoder trained without an adversary",
    "graphics": "computer graphics",
    "unknown": "not known",
}
"""Each architecture in words."""

LONGEST_NAME = 100
NAME_RULE = f"1 to {LONGEST_NAME} printable characters without outer spaces"


def is_name(text: str) -> bool:
    """Whether a generator may have this name: names appear in terminals, prompts, file names and files of labels."""
    return text == text.strip() and text.isprintable() and 0 < len(text) <= LONGEST_NAME


def check_family(manipulation: Any, architecture: Any) -> None:
    """Check a manipulation and an architecture: each is listed, and both are ``"none"`` or neither is.

    This is the only place that knows the rule. A caller that reads files puts the place before the message, which
    begins with the name of the field.

    Raises:
        RangeError: one is not in ``MANIPULATIONS`` or ``ARCHITECTURES``; the message says which was probably meant.
        ConfigError: only one of the two is ``"none"``, which stands for photographs.

    Example:
        >>> check_family("FR", "GAN")
        >>> check_family("EFS", "Diffusion")
        Traceback (most recent call last):
        ...
        bmrl.errors.RangeError: architecture: expected none, GAN, diffusion, flow, autoregressive, autoencoder, \
graphics or unknown, got 'Diffusion'; did you mean diffusion?
    """
    _check_listed("manipulation", manipulation, MANIPULATION_NAMES)
    _check_listed("architecture", architecture, ARCHITECTURE_NAMES)
    if (manipulation == "none") != (architecture == "none"):
        raise ConfigError(
            f"architecture: expected none exactly for photographs (manipulation none), got {architecture} "
            f"with manipulation {manipulation}"
        )


def _check_listed(field: str, value: Any, names: Mapping[Any, str]) -> None:
    if isinstance(value, str) and value in names:
        return
    *first, last = names
    meant = _meant(value, names) if isinstance(value, str) else None
    hint = f"; did you mean {meant}?" if meant else ""
    raise RangeError(f"{field}: expected {', '.join(first)} or {last}, got {described(value)}{hint}")


def _meant(value: str, names: Mapping[str, str]) -> str | None:
    """Return the family that was probably meant: in another case, in words, or misspelled; None if nothing is close."""
    key = _letters(value)
    codes = {_letters(code): code for code in names}
    if key in codes or len(key) < 2:
        return codes.get(key)
    words = {_letters(text): code for code, text in names.items()} | codes
    parts = [code for text, code in words.items() if len(key) > 2 and (key in text or (len(text) > 2 and text in key))]
    close = difflib.get_close_matches(key, words, n=1)
    return parts[0] if parts else words[close[0]] if close else None


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator:
    """One class: a generator of faces, or a source of photographs.

    Args:
        name: the name of the class in every table: up to 100 printable characters, no space at either end.
        manipulation: ``"EFS"`` entire face synthesis, ``"FS"`` face swap, ``"AM"`` attribute manipulation, ``"FR"``
            face reenactment; ``"none"`` for photographs.
        architecture: ``"GAN"``, ``"diffusion"``, ``"flow"`` (normalizing flows and flow matching),
            ``"autoregressive"``, ``"autoencoder"`` (trained to reconstruct, without an adversary), ``"graphics"``
            (no learned generator) or ``"unknown"``; ``"none"`` for photographs.

    Raises:
        RangeError: a family is not in the lists above; the message says which was probably meant.
        ConfigError: ``name`` breaks its rule, or only one of the two families is ``"none"``.

    Example:
        >>> Generator(name="FOMM", manipulation="FR", architecture="autoencoder").is_real
        False
    """

    name: str
    manipulation: Manipulation
    architecture: Architecture

    def __post_init__(self) -> None:
        check_family(self.manipulation, self.architecture)
        check_fields(self)
        if not is_name(self.name):
            raise ConfigError(f"name: expected {NAME_RULE}, got {described(self.name)}")

    @property
    def is_real(self) -> bool:
        """Whether the class holds photographs."""
        return self.manipulation == "none"
