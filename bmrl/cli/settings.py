"""``--set NAME=VALUE``: fields of the model's configuration and of the training recipe."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["add_settings", "setting", "split_settings"]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--set``, which may be repeated."""
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a field of the model's configuration or of the recipe, such as edge=false, weight_decay=0.01 or "
        "objective.margin=0.5; may be repeated",
    )


def setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``NAME=VALUE``, whose value is JSON, a number, or else text."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):  # no JSON, or what Python's reader refuses
        pass
    try:
        return name, float(value)  # such as .5, which JSON doesn't know
    except ValueError:
        return name, value


def split_settings(settings: Iterable[tuple[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return changes of the model's configuration and of the recipe; ``objective.NAME`` is part of the latter.

    Raises:
        ConfigError: neither has a field of this name.
    """
    from bmrl._checks import described
    from bmrl._fields import names_of, unknown_name
    from bmrl.errors import ConfigError
    from bmrl.models import BMRLConfig
    from bmrl.training import TrainingConfig

    known = names_of(BMRLConfig, TrainingConfig)
    model: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    for name, value in settings:
        if name.startswith("objective."):
            objective[name.removeprefix("objective.")] = value
        elif name in known["TrainingConfig"]:
            recipe[name] = value
        elif name in known["BMRLConfig"]:
            model[name] = value
        else:
            raise unknown_name(name, known)
    if objective:
        whole = recipe.setdefault("objective", {})
        if not isinstance(whole, dict):
            raise ConfigError(f"objective: expected a mapping from names to values, got {described(whole)}")
        recipe["objective"] = whole | objective
    return model, recipe
