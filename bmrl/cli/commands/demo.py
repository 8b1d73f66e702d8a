"""``bmrl demo``: the whole path on simulated data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._outputs import check_out_folder
from bmrl.cli.arguments import add_out, add_seed
from bmrl.cli.command import Command

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_out(parser, "folder for all results", default="demo")
    add_seed(parser)


def _run(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
    from bmrl.cli.demo import demo

    demo(options.out, seed=options.seed)


COMMAND = Command(
    name="demo",
    summary="simulate, train, evaluate, export, serve and attribute, from nothing",
    function="demo",
    add_arguments=_add_arguments,
    run=_run,
)
