"""Changes of a tree of dataclasses, given as plain data by dotted names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

from bmrl._fields.names import EVERY, annotations_of, names_of, nested_in, shown, unknown_name
from bmrl._values import described
from bmrl.errors import ConfigError

__all__ = ["with_changes"]


def with_changes(owner: type, data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data of a dataclass with changes.

    Args:
        owner: the dataclass.
        data: its fields by name; parts as mappings.
        changes: values by dotted name. ``*.NAME`` is the field ``NAME`` of every part that has one; a more exact name
            overrides it. A mapping changes the fields of a part that it names. A new ``kind`` begins with its defaults.

    Raises:
        ConfigError: a name is not a field, or one of a part that is off.
    """
    result = _plain(data)
    known = names_of(owner)
    for name in changes:
        if name not in known[owner.__name__]:
            raise unknown_name(name, known)
    for name, value in sorted(changes.items(), key=lambda change: _rank(change[0])):
        if name.startswith(EVERY):
            _set_everywhere(owner, result, name.removeprefix(EVERY), value)
        else:
            _set(owner, result, name.split("."), value, name)
    return result


def _rank(name: str) -> int:
    """Kinds come first, since they decide which fields there are; then what is meant for all parts."""
    return 0 if name.endswith(".kind") else 1 if name.startswith(EVERY) else 2


def _plain(value: Any) -> Any:
    """Return mappings and dataclasses as new dicts, to any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return {key: _plain(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value


def _set(owner: type, data: dict[str, Any], path: list[str], value: Any, whole: str) -> None:
    field, *rest = path
    if field not in annotations_of(owner):  # of another kind than the part has
        prefix = whole[: len(whole) - len(".".join(path))]
        raise unknown_name(field, {owner.__name__: annotations_of(owner)}, prefix=prefix)
    if not rest:
        data[field] = _merged(owner, data, field, value, whole)
        return
    part = _part(owner, data, field)
    if part is None:
        at = whole[: len(whole) - len(".".join(rest)) - 1]
        raise ConfigError(f"{whole}: expected a part that is on, got {at} = {described(data.get(field))}")
    _set(part, data[field], rest, value, whole)


def _merged(owner: type, data: dict[str, Any], field: str, value: Any, whole: str) -> Any:
    value = _plain(value)
    part = _part(owner, data, field)
    if field == "kind" and len(get_args(annotations_of(owner)[field])) == 1 and data.get(field) != value:
        data.clear()  # the fields of another dataclass
    if (
        part is None
        or not isinstance(value, dict)
        or value.get("kind", data[field].get("kind")) != data[field].get("kind")
    ):
        return value
    result = data[field]
    for name, entry in value.items():
        _set(part, result, [name] if isinstance(name, str) else [shown(name)], entry, f"{whole}.{shown(name)}")
    return result


def _part(owner: type, data: Mapping[str, Any], field: str) -> type | None:
    """Return the dataclass of a part that is on."""
    kinds = nested_in(annotations_of(owner)[field])
    part = data.get(field)
    if not isinstance(part, Mapping) or not kinds:
        return None
    return kinds.get(part.get("kind", next(iter(kinds))), kinds.get(None))


def _set_everywhere(owner: type, data: dict[str, Any], name: str, value: Any) -> None:
    """Set a field in every part of ``data`` that has it."""
    for field in annotations_of(owner):
        part = _part(owner, data, field)
        if part is None:
            continue
        if name in annotations_of(part):
            _set(part, data[field], [name], value, f"{field}.{name}")
        _set_everywhere(part, data[field], name, value)
