"""The formats in which ``bmrl attribute`` prints its answers."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bmrl._text import printable
from bmrl.cli.output import write
from bmrl.cli.signals import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bmrl.inference.attribution import Attribution

__all__ = ["FORMATS", "Answers", "Unanswered", "answers_in"]

FORMATS = ("table", "json", "jsonl", "csv")

CSV_FIELDS = (
    "source", "verdict", "generator", "probability", "score", "seen", "threshold", "reason", "manipulation",
    "architecture", "error",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


class Unanswered(NamedTuple):
    """An input without an answer, and why."""

    source: str
    error: str

    def to_dict(self) -> dict[str, str]:
        """Return plain data that JSON can hold."""
        return self._asdict()


class Answers(Protocol):
    """Prints one entry after the other, each at once where the format allows it."""

    def begin(self, generators: Sequence[str]) -> None:
        """Take the names of the model's classes, before the first entry."""

    def add(self, entry: Attribution | Unanswered) -> None:
        """Take the next entry."""

    def finish(self) -> None:
        """Print what is still missing; also when the work was interrupted."""


def answers_in(form: str) -> Answers:
    """Return the printer of one of ``FORMATS``."""
    printers: dict[str, type[Answers]] = {"table": _Table, "json": _JSON, "jsonl": _JSONLines, "csv": _CSV}
    return printers[form]()


class _Table:
    """Aligned columns, whose widths are known at the end; what failed is only on stderr."""

    def __init__(self) -> None:
        self._answered: list[Attribution] = []

    def begin(self, generators: Sequence[str]) -> None:
        pass

    def add(self, entry: Attribution | Unanswered) -> None:
        if not isinstance(entry, Unanswered):
            self._answered.append(entry)

    def finish(self) -> None:
        from bmrl.inference.attribution import format_table

        if self._answered:
            with uninterrupted():
                write(format_table(self._answered) + "\n")


class _JSON:
    """One list, complete whenever it ends."""

    def __init__(self) -> None:
        self._count = 0

    def begin(self, generators: Sequence[str]) -> None:
        pass

    def add(self, entry: Attribution | Unanswered) -> None:
        text = "\n".join(f"  {line}" for line in json.dumps(entry.to_dict(), indent=2).split("\n"))
        with uninterrupted():
            write(("," if self._count else "[") + "\n" + text)
            self._count += 1

    def finish(self) -> None:
        with uninterrupted():
            write("\n]\n" if self._count else "[]\n")


class _JSONLines:
    """One object per line."""

    def begin(self, generators: Sequence[str]) -> None:
        pass

    def add(self, entry: Attribution | Unanswered) -> None:
        with uninterrupted():
            write(json.dumps(entry.to_dict()) + "\n")

    def finish(self) -> None:
        pass


class _CSV:
    """One row per entry under a header: the fields, the error, and the probability of each class."""

    def __init__(self) -> None:
        self._generators: Sequence[str] = ()

    def begin(self, generators: Sequence[str]) -> None:
        self._generators = generators
        with uninterrupted():
            self._row([*CSV_FIELDS, *(f"probability of {name}" for name in generators)])

    def add(self, entry: Attribution | Unanswered) -> None:
        known: dict[str, Any] = entry.to_dict()
        probabilities: dict[str, float] = known.get("probabilities", {})
        cells = [known.get(field) for field in CSV_FIELDS] + [probabilities.get(name) for name in self._generators]
        with uninterrupted():
            self._row(cells)

    def finish(self) -> None:
        pass

    @staticmethod
    def _row(cells: Sequence[object]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([_cell(value) for value in cells])
        write(text.getvalue())


def _cell(value: object) -> object:
    """Return a value for a spreadsheet, where a name is text, never a formula; only its line breaks are kept."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(FORMULA) else value
    return "\n".join(map(printable, text.split("\n")))
