"""Arguments that several commands share, each defined once, and the parsers that take them."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from bmrl._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = [
    "PRESETS",
    "CommandParser",
    "Parser",
    "add_batch_size",
    "add_data",
    "add_device",
    "add_model",
    "add_out",
    "add_preset",
    "add_seed",
    "given",
    "path",
]

PRESETS = ("tiny", "recommended", "paper")
"""The names of ``bmrl.training.settings.PRESETS``, whose module needs Lightning: help should come at once."""


class Parser(argparse.ArgumentParser):
    """Writes its errors on one printable line."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 2."""
        super().error(printable(message))


class CommandParser(Parser):
    """Takes options anywhere among the other arguments, which are added when they are first needed.

    Args:
        add_arguments: adds the command's arguments to this parser.
        options: as of ``argparse.ArgumentParser``.
    """

    _intermixing = False

    def __init__(self, *, add_arguments: Callable[[argparse.ArgumentParser], None], **options: Any) -> None:
        super().__init__(**options)
        self._missing: Callable[[argparse.ArgumentParser], None] | None = add_arguments

    def complete(self) -> CommandParser:
        """Add the arguments if they are not there yet, and return this parser."""
        add, self._missing = self._missing, None
        if add is not None:
            add(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse what a command got; the method of argparse that does so calls this one in turn."""
        self.complete()
        if self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False


def path(text: str) -> str:
    """Return a path; an empty one, as of a variable that is not set, would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the options that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def add_model(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add ``MODEL``, the folder of a model."""
    parser.add_argument(
        "model",
        type=path,
        nargs="?" if optional else None,
        metavar="MODEL",
        help="model folder, as bmrl train writes it",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, a folder with a manifest."""
    parser.add_argument(
        "--data",
        type=path,
        required=True,
        metavar="DIR",
        help="data folder with manifest.csv, as bmrl simulate and bmrl import write it",
    )


def add_out(parser: argparse.ArgumentParser, what: str, *, metavar: str = "DIR", default: str | None = None) -> None:
    """Add ``--out``, where the command writes; required without a default.

    Args:
        parser: of a command.
        what: the help.
        metavar: ``"DIR"`` or ``"PATH"``.
        default: None makes it required.
    """
    what += "" if default is None else " (default: %(default)s)"
    parser.add_argument("--out", type=path, required=default is None, default=default, metavar=metavar, help=what)


def add_device(
    parser: argparse.ArgumentParser,
    words: str = "cpu, cuda, cuda:N, mps, or auto: a GPU if there is one",
    *,
    default: str = "auto",
) -> None:
    """Add ``--device``, as PyTorch names devices.

    Args:
        parser: of a command.
        words: those that the command can use, for the help.
        default: one of them.
    """
    parser.add_argument(
        "--device",
        type=_device,
        default=default,
        metavar="DEVICE",
        help=f"{words} (default: %(default)s)",
    )


def add_batch_size(parser: argparse.ArgumentParser, default: int | None = 32) -> None:
    """Add ``--batch-size`` of an inference, 32 unless it is given."""
    parser.add_argument("--batch-size", type=int, default=default, metavar="N", help="images per batch (default: 32)")


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``, 0 unless it is given."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers (default: %(default)s)")


def add_preset(parser: argparse.ArgumentParser, default: str | None = "tiny") -> None:
    """Add ``--preset``, "tiny" unless it is given."""
    parser.add_argument(
        "--preset",
        default=default,
        choices=PRESETS,
        help="sizes of the model and the recipe that trains it (default: tiny)",
    )


def _device(text: str) -> str:
    """Return a device as PyTorch names it, or ``auto``."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda, cuda:N, mps or xpu, got {text!r}")
    return text
