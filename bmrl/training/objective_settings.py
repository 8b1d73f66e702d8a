"""The recipe's ``objective``: arguments of :class:`~bmrl.losses.BMRLObjective`, checked and described as fields are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, get_type_hints

import torch

from bmrl._fields import FieldDoc, checked, described_type, unknown_name
from bmrl.errors import BMRLError, ConfigError
from bmrl.losses import BMRLObjective

__all__ = ["checked_objective", "objective_docs"]


def checked_objective(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of BMRLObjective in plain form, each checked as its annotation and its constructor require.

    Raises:
        ConfigError, RangeError: one is unknown, of another type or out of its range; named as ``objective.NAME``.
    """
    if not settings:
        return {}
    annotations = _annotations()
    for name in settings:
        if name not in annotations:
            raise unknown_name(name, {BMRLObjective.__name__: annotations}, prefix="objective.")
    given = {name: checked(f"objective.{name}", value, annotations[name]) for name, value in settings.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            BMRLObjective(SimpleNamespace(num_generators=2, embed_dim=2), **given)
    except BMRLError as error:
        raise ConfigError(f"objective.{error}") from error
    return given


def objective_docs() -> list[FieldDoc]:
    """Return the arguments that a recipe may set, as ``objective.NAME``, with the words of their documentation."""
    parameters = inspect.signature(BMRLObjective).parameters
    _, _, section = inspect.cleandoc(BMRLObjective.__doc__ or "").partition("\nArgs:\n")
    entries = re.split(r"^    (\w+): ", section.partition("\n\n")[0], flags=re.MULTILINE)
    docs = dict(zip(entries[1::2], (" ".join(text.split()) for text in entries[2::2]), strict=True))
    return [
        FieldDoc(f"objective.{name}", described_type(annotation), parameters[name].default, docs.get(name, ""))
        for name, annotation in _annotations().items()
    ]


def _annotations() -> dict[str, Any]:
    """Return the annotations of the arguments that are plain data."""
    found = get_type_hints(BMRLObjective.__init__, localns={"Mapping": Mapping, "ProcessGroup": object})
    return {name: annotation for name, annotation in found.items() if name not in ("config", "group", "return")}
