"""Standard streams and the log: whole lines, without characters that a terminal would act on."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from typing import TYPE_CHECKING

from bmrl._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LineFormatter", "complain", "fill_standard_streams", "mute", "progress_bar", "say", "show_log", "write"]

CLEAR_LINE = "\x1b[K"


def say(text: str) -> None:
    """Print a result to stdout; the line breaks of ``text`` are kept."""
    write("".join(f"{printable(line)}\n" for line in text.split("\n")))


def write(text: str) -> None:
    """Write to stdout at once.

    Raises:
        OSError: with the filename "stdout"; BrokenPipeError if the reader has gone.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from error


def complain(message: str, *notes: str) -> None:
    """Print a message on one line of stderr, and after it notes, whose line breaks are kept.

    A stderr that is closed or full is no reason to stop.
    """
    lines = [message, *(line for note in notes for line in note.split("\n"))]
    with contextlib.suppress(OSError, AttributeError, ValueError):
        clear = CLEAR_LINE if sys.stderr.isatty() else ""  # of a progress bar
        sys.stderr.write(clear + "".join(f"{printable(line)}\n" for line in lines))
        sys.stderr.flush()


class LineFormatter(logging.Formatter):
    """Writes each message on one printable line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record, without its traceback."""
        return printable(super().formatMessage(record))


def show_log(*, verbose: bool) -> None:
    """Show what bmrl logs, and of what the libraries log and warn of, only what concerns the user."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("bmrl: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    logging.getLogger("bmrl").setLevel(logging.INFO)
    if not verbose:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of unusual files, which they don't name


def progress_bar(unit: str) -> Callable[[int, int], None] | None:
    """Return what draws ``done`` of ``total`` on stderr, at most five times a second; None without a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    drawn = began = time.monotonic()

    def draw(done: int, total: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if done >= total:
            line = CLEAR_LINE
        elif now - drawn < 0.2:
            return
        else:
            left = (now - began) / done * (total - done) if done else 0.0
            filled = 30 * done // total
            line = f"[{'#' * filled}{'.' * (30 - filled)}] {done} of {total} {unit}, {left:.0f} s left"
        drawn = now
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{line}{CLEAR_LINE}\r")  # what is written next overwrites it
            sys.stderr.flush()

    return draw


def fill_standard_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Otherwise the next file that is opened takes its number, and all that a library prints goes into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def mute(stream: int) -> None:
    """Send what is still to be written to a stream that fails nowhere, so that nothing fails again at exit."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream)
        os.close(null)
