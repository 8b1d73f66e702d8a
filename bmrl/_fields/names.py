"""Dotted names of the fields of a tree of dataclasses, and the error for a name that is none of them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from bmrl._values import described
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["annotations_of", "names_of", "nested_in", "shown", "unknown_name"]

EVERY = "*."
"""Before a name: the field of this name in every part that has one."""


@functools.cache
def annotations_of(owner: Any) -> dict[str, Any]:
    """Return the annotations of a dataclass's fields, by name."""
    hints = get_type_hints(owner, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}


def nested_in(annotation: Any) -> dict[str | None, type]:
    """Return the dataclasses that a field may hold, by kind; by None if it is always the same one."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated and hasattr(arguments[1], "table"):
        return dict(arguments[1].table)
    if arguments and type(None) in arguments:
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        return nested_in(wanted)
    return {None: annotation} if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) else {}


@functools.cache
def _dotted(owner: type) -> tuple[str, ...]:
    """Return the names of all fields, in every kind of a part, and ``*.NAME`` for those of parts."""
    names = dict.fromkeys(_walk(owner))
    last = (name.rpartition(".")[2] for name in names if "." in name)
    return (*names, *dict.fromkeys(EVERY + name for name in last))


def _walk(owner: type, prefix: str = "") -> Iterator[str]:
    for name, annotation in annotations_of(owner).items():
        yield prefix + name
        for part in nested_in(annotation).values():
            yield from _walk(part, f"{prefix}{name}.")


def names_of(*owners: type) -> dict[str, list[str]]:
    """Return the dotted names of the fields of dataclasses, by the names of these."""
    return {owner.__name__: list(_dotted(owner)) for owner in owners}


def unknown_name(name: Any, known: Mapping[str, Iterable[str]], *, prefix: str = "") -> ConfigError:
    """Return the error for a name that is not a field, with the one that was probably meant.

    Args:
        name: what was given.
        known: names of fields, by what they are fields of.
        prefix: what precedes each name, such as ``"objective."``.
    """
    owners = {field: owner for owner, fields in known.items() for field in fields}
    close = _meant(name, owners) if isinstance(name, str) else []
    if close:
        wanted, hint = " or ".join(known), f"; did you mean {prefix}{close[0]} of {owners[close[0]]}?"
    else:
        top = {owner: sorted(field for field in fields if "." not in field) for owner, fields in known.items()}
        wanted, hint = " or ".join(f"{owner} ({', '.join(fields)})" for owner, fields in top.items()), ""
    return ConfigError(f"{prefix}{shown(name)}: expected a field of {wanted}, got no such{hint}")


def _meant(name: str, owners: Mapping[str, str]) -> list[str]:
    close = difflib.get_close_matches(name, owners, n=1)
    if close or "." in name:
        return close
    last = {field.removeprefix(EVERY): field for field in owners if field.startswith(EVERY)}
    return [last[field] for field in difflib.get_close_matches(name, last, n=1)]


def shown(name: Any) -> str:
    """Return a name as it is if it is a plain one."""
    plain = isinstance(name, str) and name.isprintable() and 0 < len(name) <= 80
    return name if plain else described(name)
