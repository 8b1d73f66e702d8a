"""Typed fields of configurations: how a value is checked, named, changed and described.

A frozen dataclass calls :func:`check_fields` in ``__post_init__``, so that a constructor, a JSON file and the command
line give the same errors. A field may be a dataclass itself, or one of several that a table names (:class:`Kinds`).
"""

from __future__ import annotations

from bmrl._fields.changes import with_changes
from bmrl._fields.checks import (
    LARGEST_COUNT,
    Bounds,
    Count,
    Kinds,
    NotNegative,
    Positive,
    Share,
    check_fields,
    checked,
    from_mapping,
)
from bmrl._fields.docs import FieldDoc, described_type, field_docs
from bmrl._fields.names import names_of, unknown_name

__all__ = [
    "LARGEST_COUNT",
    "Bounds",
    "Count",
    "FieldDoc",
    "Kinds",
    "NotNegative",
    "Positive",
    "Share",
    "check_fields",
    "checked",
    "described_type",
    "field_docs",
    "from_mapping",
    "names_of",
    "unknown_name",
    "with_changes",
]
