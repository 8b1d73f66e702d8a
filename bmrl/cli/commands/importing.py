"""``bmrl import``: your images become a data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._outputs import check_out_folder
from bmrl.cli.arguments import add_out, add_seed, path
from bmrl.cli.command import Command
from bmrl.cli.output import complain, say

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]

MOST_REMARKS = 20


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=["folder"], help="folder: SRC holds one folder per generator")
    parser.add_argument("source", type=path, metavar="SRC")
    add_out(parser, "new folder for the images and manifest.csv; becomes a data folder")
    parser.add_argument(
        "--families", type=path, metavar="YAML", help="manipulation, architecture, role and groups by generator"
    )
    parser.add_argument("--unseen", nargs="+", default=[], metavar="NAME", help="generators to keep for testing")
    parser.add_argument("--val", type=float, default=0.1, help="share for validation (default: %(default)s)")
    parser.add_argument("--test", type=float, default=0.2, help="share for testing (default: %(default)s)")
    add_seed(parser)
    parser.add_argument("--symlink", action="store_true", help="link to the images instead of copying them")


def _run(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
    from bmrl.data import import_faces

    report = import_faces(
        options.source,
        options.out,
        families=options.families,
        unseen=options.unseen,
        seed=options.seed,
        val=options.val,
        test=options.test,
        symlink=options.symlink,
    )
    say(report.summary())
    for name, reason in report.skipped[:MOST_REMARKS]:
        complain(f"skipped {name}: {reason}")
    say(f"wrote {options.out}/manifest.csv and import_report.json")


COMMAND = Command(
    name="import",
    summary="turn your images into a data folder",
    function="import_faces",
    add_arguments=_add_arguments,
    run=_run,
    takes={"kind": None},
)
