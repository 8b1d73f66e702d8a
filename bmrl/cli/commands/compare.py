"""``bmrl compare``: BMRL and ResNet-18 on the same data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bmrl._outputs import check_out_folder
from bmrl.cli.arguments import add_data, add_device, add_out, add_preset, given
from bmrl.cli.command import Command
from bmrl.cli.output import say

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_out(parser, "folder for comparison.json")
    add_preset(parser)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="one training each (default: 0 1 2)"
    )
    parser.add_argument(
        "--folds", type=int, default=3, metavar="N", help="folds that choose the epochs (default: %(default)s)"
    )
    parser.add_argument("--max-epochs", type=int, metavar="N", help="longest training tried (default: each recipe's)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="bmrl and baselines (default: bmrl resnet18)")
    add_device(parser)


def _run(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
    from bmrl.evaluation import compare, format_comparison

    comparison = compare(
        options.data,
        options.out,
        preset=options.preset,
        seeds=options.seeds,
        folds=options.folds,
        max_epochs=options.max_epochs,
        device=options.device,
        **given(options, "methods"),
    )
    say(format_comparison(comparison))


def _after_stop(options: argparse.Namespace) -> str:
    if Path(options.out, "comparison.json").is_file():
        return f"; {options.out}/comparison.json holds the methods that were finished"
    return f"; nothing was written to {options.out}"


COMMAND = Command(
    name="compare",
    summary="train BMRL and ResNet-18 on the same data, several seeds each",
    function="compare",
    add_arguments=_add_arguments,
    run=_run,
    after_stop=_after_stop,
)
