"""``bmrl train``: a model of the seen images of a data folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bmrl._outputs import check_out_folder
from bmrl.cli.arguments import add_data, add_device, add_out, add_preset, given, path
from bmrl.cli.command import Command
from bmrl.cli.output import complain, say
from bmrl.cli.settings import add_settings, split_settings

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]

_RECIPE = ("epochs", "batch_size", "learning_rate", "seed", "precision")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_out(parser, "new or empty folder; becomes the model folder")
    add_preset(parser, default=None)
    parser.add_argument(
        "--model",
        type=path,
        metavar="MODEL",
        help="model folder, as bmrl train writes it, to train further instead of a preset's model",
    )
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in --out")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the training images")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per step")
    parser.add_argument("--learning-rate", type=float, metavar="RATE")
    parser.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"])
    parser.add_argument("--seed", type=int, metavar="N", help="of all random numbers")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that read and change images ahead (default: by the CPU)"
    )
    add_settings(parser)
    add_device(parser)


def _run(options: argparse.Namespace) -> None:
    check_out_folder("out", options.out)
    recipe = given(options, *_RECIPE)
    if options.resume and (recipe or options.set or options.preset):
        options.usage_error("--resume goes on with the settings of the run; leave the other settings out")
    names = [*recipe, *(name for name, _ in options.set)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        options.usage_error(f"{twice}: expected one value, got {names.count(twice)} (--set and the options count)")
    from bmrl.training import train

    model_changes, more = split_settings(options.set)
    if options.model is not None and model_changes:
        options.usage_error(f"--set {next(iter(model_changes))}: expected fields of the recipe alone with --model")
    run = train(
        options.data,
        options.out,
        preset=options.preset,
        model=options.model,
        resume=options.resume,
        recipe_changes=recipe | more,
        model_changes=model_changes or None,
        device=options.device,
        workers=options.workers,
    )
    for name, reason in run.skipped:
        complain(f"skipped {name}: {reason}")
    branch = "on" if run.parsing else "off (no parsing maps)"
    say(f"model in {run.folder}; {len(run.skipped)} images skipped; parsing branch {branch}")


def _after_stop(options: argparse.Namespace) -> str:
    if not Path(options.out, "training.json").is_file():
        return f"; nothing was written to {options.out}"
    again = ["bmrl", "train", "--data", options.data, "--out", options.out, "--resume"]
    again += [] if options.model is None else ["--model", options.model]
    return f"; go on with: {shlex.join(again)}"


COMMAND = Command(
    name="train",
    summary="train a model on the seen images of a data folder",
    function="train",
    add_arguments=_add_arguments,
    run=_run,
    takes=dict.fromkeys(_RECIPE, "recipe_changes") | {"set": "model_changes"},
    after_stop=_after_stop,
)
