"""The commands of ``bmrl``: a file per command, which defines ``COMMAND``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bmrl.cli.command import Command

__all__ = ["COMMANDS"]

_FILES = (  # in the order of the help
    "demo",
    "simulate",
    "importing",
    "train",
    "calibrate",
    "enroll",
    "evaluate",
    "compare",
    "attribute",
    "export",
    "serve",
)

COMMANDS: tuple[Command, ...] = tuple(importlib.import_module(f"{__name__}.{file}").COMMAND for file in _FILES)
