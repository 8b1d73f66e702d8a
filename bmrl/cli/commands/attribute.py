"""``bmrl attribute``: which generator made each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.cli.answers import FORMATS
from bmrl.cli.arguments import add_batch_size, add_device
from bmrl.cli.command import FAILURE, SUCCESS, Command

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="PATH",
        help="the model folder (not with --server), then images or folders of images",
    )
    parser.usage = "%(prog)s [options] MODEL PATH [PATH ...]\n       %(prog)s [options] --server URL PATH [PATH ...]"
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="decide by the maximum probability alone: below it an image is unseen, 0 .. 1 (default: the model's "
        "fitted decision, or its first threshold)",
    )
    parser.add_argument(
        "--max-error",
        type=float,
        metavar="SHARE",
        help="share of pictures of known generators that may get a wrong name, such as 0.01; others are uncertain "
        "(default: what the model's decision was fitted for)",
    )
    add_batch_size(parser, default=None)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="all but the table hold an entry for each image, in order, with its error where it has no answer",
    )
    form.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    add_device(parser)
    parser.add_argument(
        "--server",
        metavar="URL",
        help="ask this Triton server instead: HOST:PORT or grpc://HOST:PORT, or http://HOST:PORT",
    )


def _run(options: argparse.Namespace) -> int:
    model, paths = (None, options.inputs) if options.server else (options.inputs[0], options.inputs[1:])
    if not paths or model == "":
        options.usage_error("expected MODEL and at least one PATH (or --server URL)")
    if options.server and options.max_error is not None:
        options.usage_error("--max-error: expected none with --server, whose limits are those of the exported model")
    if options.server and (options.batch_size is not None or options.device != "auto"):
        options.usage_error("--batch-size, --device: expected neither with --server, which has its own")
    from bmrl.cli.attributing import attribute

    failures = attribute(
        paths,
        model=model,
        server=options.server,
        threshold=options.threshold,
        max_error=options.max_error,
        batch_size=32 if options.batch_size is None else options.batch_size,
        device=options.device,
        form=options.format,
    )
    return FAILURE if failures else SUCCESS


COMMAND = Command(
    name="attribute",
    summary="say which generator made each image, or that none known did",
    function="attribute",
    add_arguments=_add_arguments,
    run=_run,
    takes={"inputs": "images", "format": None, "server": None},
    after_stop=lambda options: "; the images after the last answer are not attributed",
)
