"""What a command is: its name, its arguments, the function of the library behind it, and what an interrupt leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

__all__ = ["FAILURE", "SUCCESS", "Command"]

SUCCESS, FAILURE = 0, 1  # argparse exits with 2 on wrong usage


def _again(options: argparse.Namespace) -> str:
    return "; run the same command again to start over"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command of ``bmrl``.

    Attributes:
        name: as it is typed.
        summary: its help in one line, without a period.
        function: the name at the top of :mod:`bmrl` of the function that does the same.
        add_arguments: adds its arguments to its parser; loads no package that takes long, as help should come at once.
        run: does the work and returns the exit code; None means 0.
        takes: for each argument that the function knows by another name, this name; None for one that concerns only the
            command line.
        after_stop: returns what to say when a signal stopped it: what it left, and how to go on.
    """

    name: str
    summary: str
    function: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    takes: Mapping[str, str | None] = field(default_factory=dict)
    after_stop: Callable[[argparse.Namespace], str] = _again
