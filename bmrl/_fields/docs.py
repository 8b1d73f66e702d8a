"""What a field is for, read from where it is declared: the docstring beneath it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from bmrl._fields.checks import LARGEST_COUNT, Bounds, Kinds
from bmrl._fields.names import annotations_of, nested_in

__all__ = ["FieldDoc", "described_type", "field_docs"]

_NAMES = {bool: "true or false", int: "integer", float: "number", str: "text"}


class FieldDoc(NamedTuple):
    """One field, as help texts show it."""

    name: str
    """Dotted, such as ``appearance.num_blocks``."""
    type: str
    """Type, choices and bounds, such as ``integer >= 1``."""
    default: Any
    """Of the dataclass, not of a preset; ``dataclasses.MISSING`` if there is none."""
    doc: str
    """One paragraph; "" if the field has no docstring."""


def field_docs(owner: type) -> list[FieldDoc]:
    """Return all fields of a tree of dataclasses, each part before its own fields.

    A field that only one kind of a part has says so at the end of its ``doc``.
    """
    return list(_walk(owner, "", ""))


def _walk(owner: type, prefix: str, note: str) -> Iterator[FieldDoc]:
    docs = _docstrings(owner)
    for field in dataclasses.fields(owner):
        annotation = annotations_of(owner)[field.name]
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield FieldDoc(prefix + field.name, described_type(annotation), default, docs.get(field.name, "") + note)
        seen: set[str] = set()
        parts = nested_in(annotation)
        for kind, part in parts.items():
            own = f" (kind {kind})" if kind is not None and seen else ""
            found = [entry for entry in _walk(part, f"{prefix}{field.name}.", own) if entry.name not in seen]
            seen |= {entry.name for entry in found}
            if kind is not None and not own:  # the first kind's, which speaks for all
                found = [
                    entry._replace(type=" or ".join(map(str, parts))) if entry.name.endswith(".kind") else entry
                    for entry in found
                ]
            yield from found


@functools.cache
def _docstrings(owner: type) -> dict[str, str]:
    """Return the string literals beneath fields, by field; those of base classes too."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for line, after in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                text = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                )
                found[line.target.id] = " ".join(text.split()) if isinstance(text, str) else ""
    return found


def described_type(annotation: Any) -> str:
    """Return the annotation of a field in words, with its choices and bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "any"
    if origin in (Union, types.UnionType):
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        return f"{described_type(wanted)}, or null"
    if origin is Annotated:
        return _bounded(*arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {described_type(arguments[0])}"
    if origin in (dict, Mapping):
        return f"{described_type(arguments[1])} by name"
    return _NAMES.get(annotation, "fields" if dataclasses.is_dataclass(annotation) else annotation.__name__)


def _bounded(kind: Any, limits: Bounds | Kinds) -> str:
    if isinstance(limits, Kinds):
        return f"fields of kind {' or '.join(limits.table)}"
    most = limits.most if limits.most != LARGEST_COUNT else None
    return _NAMES[kind] + dataclasses.replace(limits, most=most).described(most if most is None else most + 1)
