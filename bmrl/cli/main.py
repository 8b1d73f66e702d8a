"""The command ``bmrl``: parses its arguments, runs one command, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

from bmrl._extras import missing_extra
from bmrl._version import __version__
from bmrl.cli.arguments import CommandParser, Parser
from bmrl.cli.command import FAILURE, SUCCESS
from bmrl.cli.commands import COMMANDS
from bmrl.cli.output import complain, fill_standard_streams, mute, show_log, write
from bmrl.cli.signals import stopping_signals
from bmrl.errors import BMRLError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bmrl.cli.command import Command

__all__ = ["main"]

_EPILOG = """\
exit codes: 0 all was done, 1 something failed or was not answered, 2 wrong usage, 128 + N stopped by signal N.
A command that fails says so on one line of stderr that begins with "bmrl: error: ".
"""
_VERBOSE = "also show what the libraries log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: all was done. 1: something failed or was not answered; stderr says what. 128 + n: stopped by signal n. Wrong
    usage exits with 2.

    Args:
        arguments: of the command line; None takes those of the process.
    """
    fill_standard_streams()
    options = argparse.Namespace(command=None)
    try:
        with stopping_signals(), warnings.catch_warnings():
            return _run(arguments, options)
    except KeyboardInterrupt as stop:
        signum = getattr(stop, "signum", signal.SIGINT)
        left = "" if options.command is None else options.command.after_stop(options)
        complain(f"bmrl: stopped by {signal.Signals(signum).name}{left}")
        return 128 + signum


def _run(arguments: Sequence[str] | None, options: argparse.Namespace) -> int:
    """Run one command; everything that a user may meet becomes one line, and what is left a traceback: a bug."""
    try:
        if sys.stdout is None:
            complain("bmrl: error: stdout: expected an open output, got a closed one")
            return FAILURE
        with contextlib.suppress(AttributeError):  # a stand-in for stdout
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            _parser().parse_args(arguments, options)
        finally:
            write("")  # of --help, whose writer passes over errors
        os.getcwd()  # PyTorch's libraries would end the process where it was removed
        show_log(verbose=options.verbose)
        from bmrl.export.standalone.artifact_runtime import keep_freed_memory

        keep_freed_memory()
        command: Command = options.command
        return command.run(options) or SUCCESS
    except BMRLError as error:
        complain(f"bmrl: error: {error}", *getattr(error, "__notes__", ()))
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        complain(f"bmrl: error: {missing}")
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        mute(1)
    except OSError as error:
        complain(f"bmrl: error: {_of_the_system(error)}")
        if error.filename == "stdout":
            mute(1)
    except (UnicodeError, RecursionError) as error:  # names and nested data of a user
        complain(f"bmrl: error: {error}")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        complain(f"bmrl: error: memory: expected enough for this, got: {str(error).strip() or 'no more'}")
    return FAILURE


def _parser() -> Parser:
    """Return the parser of every command; the arguments of each are added when they are needed."""
    parser = Parser(
        prog="bmrl",
        description="Attribute face images to the generators that made them (BMRL, arXiv:2504.14129).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bmrl {__version__}")
    parser.add_argument("--verbose", action="store_true", help=_VERBOSE)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=CommandParser)
    for command in COMMANDS:
        made = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            add_arguments=command.add_arguments,
        )
        made.set_defaults(command=command, usage_error=made.error)
        made.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=_VERBOSE)
    return parser


def _of_the_system(error: OSError) -> str:
    if error.filename is None:
        try:
            os.getcwd()
        except FileNotFoundError:
            return "current folder: expected an existing one, got one that was removed"
        return error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror or error}"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; PyTorch says so in a RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )
