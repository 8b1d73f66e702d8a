"""``bmrl calibrate``: how a model decides whether an image is seen, fitted after its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl._text import columns
from bmrl.cli.arguments import add_batch_size, add_data, add_device, add_model
from bmrl.cli.command import Command
from bmrl.cli.output import progress_bar, say

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser)
    parser.add_argument(
        "--score", default="neighbors", metavar="NAME", help="a score of bmrl.inference.scores (default: %(default)s)"
    )
    parser.add_argument(
        "--alterations",
        nargs="*",
        metavar="NAME",
        help="alterations of bmrl.data for which the limits are to hold too (default: jpeg75 half crop)",
    )
    parser.add_argument(
        "--accept", type=float, metavar="SHARE", help="of pictures of known generators that are not called unseen"
    )
    parser.add_argument(
        "--typical", type=float, metavar="SHARE", help="of such pictures whose score is high enough for a name"
    )
    parser.add_argument("--max-error", type=float, metavar="SHARE", help="of such pictures that may get a wrong name")
    add_batch_size(parser)
    add_device(parser)


def _run(options: argparse.Namespace) -> None:
    from bmrl.inference.calibrating import CALIBRATED_ALTERATIONS, calibrate
    from bmrl.inference.calibration import outcomes
    from bmrl.inference.decider import limits_of
    from bmrl.inference.running import resolve_model
    from bmrl.models import save_model

    model = resolve_model(options.model, options.device)
    fitted = calibrate(
        model,
        options.data,
        score=options.score,
        alterations=CALIBRATED_ALTERATIONS if options.alterations is None else options.alterations,
        accept=options.accept,
        typical=options.typical,
        max_error=options.max_error,
        batch_size=options.batch_size,
        progress=progress_bar("images"),
    )
    save_model(model, options.model)
    lines: list[tuple[str, ...]] = [
        ("calibration pictures", "named rightly", "named wrongly", "uncertain", "called unseen")
    ]
    for version, shares in outcomes(fitted.answers, limits_of(model)).items():
        lines.append((version, *(f"{100 * share:.1f} %" for share in shares)))
    say(columns(lines))
    say(f"wrote {options.model}/decision.safetensors: {fitted.answers.num_pictures} pictures, score {fitted.score}")


COMMAND = Command(
    name="calibrate",
    summary="fit when a model says a name, unseen or uncertain, on validation images",
    function="calibrate",
    add_arguments=_add_arguments,
    run=_run,
    after_stop=lambda options: f"; {options.model} is as it was",
)
