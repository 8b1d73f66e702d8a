"""``bmrl evaluate``: metrics and a report of a model on a data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.cli.arguments import add_batch_size, add_data, add_device, add_model, add_out
from bmrl.cli.command import Command
from bmrl.cli.output import complain, progress_bar, say
from bmrl.data.row import SPLITS

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser)
    add_out(parser, "folder for report.html and metrics.json")
    parser.add_argument("--split", default="test", choices=SPLITS, help="default: %(default)s")
    parser.add_argument("--thresholds", type=float, nargs="+", metavar="T", help="0 .. 1 (default: the model's)")
    parser.add_argument(
        "--alterations",
        nargs="*",
        metavar="NAME",
        help="alterations of bmrl.data to test the model after (default: jpeg75 half crop; without a name: none)",
    )
    parser.add_argument(
        "--yardsticks",
        nargs="*",
        metavar="NAME",
        help="what to compare the model with: linear probes of color_spectrum, thumbnail, color_residuals, residuals, "
        "backbone (default: all; without a name: none)",
    )
    add_batch_size(parser)
    add_device(parser)


def _run(options: argparse.Namespace) -> None:
    from bmrl.evaluation import evaluate, format_metrics
    from bmrl.evaluation.yardsticks import YARDSTICKS, in_words
    from bmrl.inference.calibrating import CALIBRATED_ALTERATIONS

    evaluation = evaluate(
        options.model,
        options.data,
        options.out,
        split=options.split,
        thresholds=options.thresholds,
        alterations=CALIBRATED_ALTERATIONS if options.alterations is None else options.alterations,
        yardsticks=tuple(YARDSTICKS) if options.yardsticks is None else options.yardsticks,
        batch_size=options.batch_size,
        device=options.device,
        progress=progress_bar("images"),
    )
    say(format_metrics({"model": evaluation}))
    for sentence in in_words(evaluation.best_yardsticks):
        say(sentence)
    for name, reason in evaluation.yardsticks_left_out.items():
        complain(f"without the yardstick {name}: {reason}")
    for entry in evaluation.skipped:
        complain(f"skipped {entry.row.path}: {entry.reason}")
    say(f"wrote {options.out}/report.html and metrics.json")


COMMAND = Command(
    name="evaluate",
    summary="test a model and write report.html and metrics.json",
    function="evaluate",
    add_arguments=_add_arguments,
    run=_run,
    after_stop=lambda options: f"; nothing was written to {options.out}",
)
