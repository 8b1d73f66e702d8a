"""A value is checked against the annotation of its field, with one wording for all."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from bmrl._fields.names import annotations_of, shown, unknown_name
from bmrl._values import check_choice, described
from bmrl.errors import ConfigError, RangeError

__all__ = ["Bounds", "Count", "Kinds", "NotNegative", "Positive", "Share", "check_fields", "checked", "from_mapping"]

_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The limits of a number, in addition to its type; None sets none."""

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
        """Whether ``value`` lies within them."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True, eq=False)
class Kinds:
    """The dataclasses that a field may hold, by the value of their field ``kind``; the first is the default."""

    table: Mapping[str, type]

    def chosen(self, name: str, kind: Any) -> type:
        """Return the dataclass of a kind.

        Raises:
            ConfigError: no such kind; the message lists those that there are.
        """
        if not isinstance(kind, str) or kind not in self.table:
            raise ConfigError(f"{name}.kind: expected {' or '.join(map(repr, self.table))}, got {described(kind)}")
        return self.table[kind]


LARGEST_COUNT = 2**31 - 1
"""More of anything is a mistake, and overflows somewhere in PyTorch."""

Count = Annotated[int, Bounds(least=1, most=LARGEST_COUNT)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(least=0)]
Share = Annotated[float, Bounds(least=0, below=1)]


def check_fields(config: object) -> None:
    """Check every field of a dataclass against its annotation, and store it in its plain form.

    Lists become tuples, mappings new dicts or the dataclass of the field, and numbers ``int`` or ``float``:
    equal configurations are equal in JSON too.

    Raises:
        ConfigError: a value has another type or is out of its bounds; the message names the field.
        RangeError: a value is none of the choices of a ``Literal``.
    """
    for name, annotation in annotations_of(cast("Any", type(config))).items():
        object.__setattr__(config, name, checked(name, getattr(config, name), annotation))


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
    if origin is Annotated and isinstance(arguments[1], Kinds):
        return _checked_kind(name, value, arguments[1])
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
        return {key: checked(f"{name}.{shown(key)}", entry, arguments[1]) for key, entry in value.items()}
    if dataclasses.is_dataclass(annotation) and isinstance(value, Mapping):
        return from_mapping(annotation, value, name=name)  # type: ignore[arg-type]
    if not isinstance(value, annotation):
        wanted = {bool: "true or false", str: "a string"}.get(annotation, f"a {annotation.__name__}")
        raise ConfigError(f"{name}: expected {wanted}, got {described(value)}")
    return value


def from_mapping(owner: type[_Made], data: Any, *, name: str = "") -> _Made:
    """Make a dataclass from plain data.

    Args:
        owner: the dataclass.
        data: values by field.
        name: of the data in errors; "" for the whole.

    Raises:
        ConfigError, RangeError: a field is unknown or missing, or a value does not fit; the message gives its dotted
            name.
    """
    prefix = f"{name}." if name else ""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{name or 'data'}: expected fields by name, got {described(data)}")
    known = annotations_of(cast("Any", owner))
    for field in data:
        if field not in known:
            raise unknown_name(field, {owner.__name__: known}, prefix=prefix)
    for field in dataclasses.fields(owner):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise ConfigError(f"{prefix}{field.name}: expected a value, got none")
    try:
        return owner(**data)
    except (ConfigError, RangeError) as error:
        raise type(error)(f"{prefix}{error}") from error


def _checked_kind(name: str, value: Any, kinds: Kinds) -> Any:
    if isinstance(value, Mapping):
        owner = kinds.chosen(name, value.get("kind", next(iter(kinds.table))))
        return from_mapping(owner, value, name=name)
    if type(value) not in kinds.table.values():
        owners = " or ".join(owner.__name__ for owner in kinds.table.values())
        raise ConfigError(f"{name}: expected {owners}, or fields by name, got {described(value)}")
    return value


def _checked_number(name: str, value: Any, kind: type, bounds: Bounds) -> int | float:
    """Return an int, or a finite float; booleans are neither."""
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
