"""``--set NAME=VALUE``: fields of the model's configuration and of the training recipe, and a list of them all."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

from bmrl.cli.output import write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bmrl._fields import FieldDoc

__all__ = ["add_settings", "fields_help", "setting", "split_settings"]

LIST = "help"
WIDTH = 100  # characters per line of the list


class _Set(argparse.Action):
    """Collects the settings; ``help`` prints the list of fields and exits."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Take one setting."""
        if values == LIST:
            write(fields_help())
            parser.exit()
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--set``, which may be repeated."""
    parser.add_argument(
        "--set",
        type=setting,
        action=_Set,
        default=[],
        metavar="NAME=VALUE",
        help="change a field of the model's configuration or of the recipe, such as edge=null (off), "
        "appearance.num_blocks=3, weight_decay=0.01 or objective.margin=0.5; may be repeated; --set help lists all "
        "fields",
    )


def setting(text: str) -> tuple[str, Any] | str:
    """Return the name and the value of ``NAME=VALUE``, whose value is JSON, a number, or else text; or ``help``."""
    name, separator, value = text.partition("=")
    if text == LIST:
        return LIST
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE or {LIST}, got {text!r}")
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
    from bmrl._fields import names_of, unknown_name
    from bmrl._values import described
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


def fields_help() -> str:
    """Return every field that ``--set`` takes, with its type, default and documentation."""
    from bmrl._fields import field_docs
    from bmrl.models import BMRLConfig
    from bmrl.training import TrainingConfig
    from bmrl.training.objective_settings import objective_docs

    parts = {
        "Fields of the model (a part is turned off with null; *.NAME is the field NAME of every part)": [
            entry for entry in field_docs(BMRLConfig) if not _is_of_python(entry.name)
        ],
        "Fields of the recipe": [*field_docs(TrainingConfig), *objective_docs()],
    }
    note = "Defaults are the paper's; a preset has its own for some of them."
    return "\n".join([note, *(f"\n{title}:\n{_listed(entries)}" for title, entries in parts.items())]) + "\n"


def _is_of_python(name: str) -> bool:
    """Whether a field of the model comes from the data, or from modules that only a program can hand over."""
    return name in ("generators", "views") or name.endswith(".module")


def _listed(entries: Iterable[FieldDoc]) -> str:
    """Return a paragraph per field."""
    lines = []
    for entry in entries:
        default = "" if entry.default is dataclasses.MISSING else f" (default: {_default(entry.default)})"
        lines.append(f"  {entry.name}: {entry.type}{default}")
        lines += textwrap.wrap(_plain(entry.doc), WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _plain(doc: str) -> str:
    """Return documentation without its markup."""
    return re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", doc).replace("``", "")


def _default(value: Any) -> str:
    """Return a value as ``--set`` takes it; a part by its kind."""
    if dataclasses.is_dataclass(value):
        return str(getattr(value, "kind", "see its fields"))
    return value if isinstance(value, str) else json.dumps(value)
