"""``bmrl simulate``: the simulated data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._outputs import check_out_folder
from bmrl.cli.arguments import add_seed, path
from bmrl.cli.command import Command
from bmrl.cli.output import say

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=path, metavar="DIR", help="new or empty folder; becomes a data folder")
    add_seed(parser)
    parser.add_argument("--images-per-generator", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=128, metavar="N", help="pixels per side (default: 128)")


def _run(options: argparse.Namespace) -> None:
    check_out_folder("folder", options.folder)
    from bmrl.data.simulated import simulate

    report = simulate(
        options.folder,
        seed=options.seed,
        images_per_generator=options.images_per_generator,
        image_size=options.image_size,
    )
    say(f"{report.num_images} simulated images in {options.folder}; see contact_sheet.png")


COMMAND = Command(
    name="simulate",
    summary="draw the simulated data set",
    function="simulate",
    add_arguments=_add_arguments,
    run=_run,
)
