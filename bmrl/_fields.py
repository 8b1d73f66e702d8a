"""Typed fields of configurations: a value is checked against the annotation of its field, with one wording for all.

A frozen dataclass calls :func:`check_fields` in ``__post_init__``, so that a constructor, a JSON file and the command
line give the same errors.
"""

from __future__ import annotations

import difflib
import functools
import math
import numbers
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from bmrl._checks import check_choice, described
from bmrl.errors import ConfigError

__all__ = ["Bounds", "Count", "NotNegative", "Positive", "Share", "check_fields", "checked", "names_of", "unknown_name"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a number must keep to, beside its type; None sets no bound."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def described(self, number: float | None) -> str:
        """Return the bounds as an error names them, such as ``" >= 0 and < 1"``; ``most`` where it matters."""
        most = self.most if number is not None and self.most is not None and number > self.most else None
        signs = {">=": self.least, ">": self.above, "<=": most, "<": self.below}
        texts = [f"{sign} {bound}" for sign, bound in signs.items() if bound is not None]
        return f" {' and '.join(texts)}" if texts else ""

    def hold(self, value: float) -> bool:
        """Whether ``value`` keeps to them."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


LARGEST_COUNT = 2**31 - 1
"""More of anything is a slip, and overflows somewhere in PyTorch."""

Count = Annotated[int, Bounds(least=1, most=LARGEST_COUNT)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(least=0)]
Share = Annotated[float, Bounds(least=0, below=1)]


def check_fields(config: object) -> None:
    """Check every field of a dataclass against its annotation, and store it in its plain form.

    Lists become tuples, mappings dicts of their own, and numbers ``int`` or ``float``: equal configurations are equal
    in JSON too.

    Raises:
        ConfigError: a value has another type or is out of its bounds; the message names the field.
        RangeError: a value is none of the choices of a ``Literal``.
    """
    for name, annotation in _annotations(type(config)).items():  # type: ignore[arg-type]
        object.__setattr__(config, name, checked(name, getattr(config, name), annotation))


@functools.cache
def _annotations(owner: type) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def checked(name: str, value: Any, annotation: Any) -> Any:
    """Return ``value`` in the plain form of ``annotation``: a type, optional or not, of those that a field may have.

    Raises:
        ConfigError, RangeError: as :func:`check_fields`.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else checked(name, value, wanted)
    if origin is Annotated:
        return _checked_number(name, value, *arguments)
    if annotation in (int, float):
        return _checked_number(name, value, annotation, Bounds())
    if origin is Literal:
        check_choice(name, value, arguments)
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: expected a list, got {described(value)}")
        return tuple(checked(f"{name}[{index}]", entry, arguments[0]) for index, entry in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{name}: expected a mapping from names to values, got {described(value)}")
        return {key: checked(f"{name}.{_shown(key)}", entry, arguments[1]) for key, entry in value.items()}
    if not isinstance(value, annotation):
        wanted = {bool: "true or false", str: "a string"}.get(annotation, f"a {annotation.__name__}")
        raise ConfigError(f"{name}: expected {wanted}, got {described(value)}")
    return value


def _checked_number(name: str, value: Any, kind: type, bounds: Bounds) -> int | float:
    """Return an int, or a finite float; truth values are neither."""
    number: int | float | None = None
    if not isinstance(value, bool):
        if kind is int and isinstance(value, numbers.Integral):
            number = int(value)
        elif kind is float and isinstance(value, numbers.Real):
            try:
                number = float(value)
            except OverflowError:  # an integer beyond all floats
                number = math.inf
    if number is None or (kind is float and not math.isfinite(number)) or not bounds.hold(number):
        wanted = "an integer" if kind is int else "a finite number"
        raise ConfigError(f"{name}: expected {wanted}{bounds.described(number)}, got {described(value)}")
    return number


def names_of(*owners: type) -> dict[str, list[str]]:
    """Return the names of the fields of dataclasses, by the names of these."""
    return {owner.__name__: list(_annotations(owner)) for owner in owners}


def unknown_name(name: Any, known: Mapping[str, Iterable[str]], *, prefix: str = "") -> ConfigError:
    """Return the error for a name that is no field, with the one that was probably meant.

    Args:
        name: what was given.
        known: names of fields, by what they are fields of.
        prefix: what stands before each name, such as ``"objective."``.
    """
    owners = {field: owner for owner, fields in known.items() for field in fields}
    close = difflib.get_close_matches(name, owners, n=1) if isinstance(name, str) else []
    if close:
        wanted, hint = " or ".join(known), f"; did you mean {prefix}{close[0]} of {owners[close[0]]}?"
    else:
        wanted, hint = " or ".join(f"{owner} ({', '.join(sorted(fields))})" for owner, fields in known.items()), ""
    return ConfigError(f"{prefix}{_shown(name)}: expected a field of {wanted}, got no such{hint}")


def _shown(name: Any) -> str:
    """Return a name as it is if it is a plain one."""
    plain = isinstance(name, str) and name.isprintable() and 0 < len(name) <= 80
    return name if plain else described(name)
