"""``bmrl enroll``: a model learns the name of one more generator, from a few pictures and without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmrl.cli.arguments import add_batch_size, add_device, add_model, path
from bmrl.cli.command import Command
from bmrl.cli.inputs import images_of
from bmrl.cli.output import complain, progress_bar, say
from bmrl.generators import ARCHITECTURES, MANIPULATIONS

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("name", metavar="NAME", help="of the generator, as answers will say it")
    parser.add_argument("pictures", nargs="+", metavar="FOLDER", help="5 to 50 of its pictures: a folder, or files")
    parser.add_argument(
        "--manipulation", choices=MANIPULATIONS, default="EFS", help="what it does to faces (default: %(default)s)"
    )
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="unknown", help="(default: %(default)s)")
    parser.add_argument("--out", type=path, metavar="DIR", help="a new model folder (default: MODEL itself)")
    add_batch_size(parser)
    add_device(parser)


def _run(options: argparse.Namespace) -> None:
    from bmrl.inference.enrolling import enroll
    from bmrl.models import save_model

    inputs = images_of(options.pictures)
    for remark in inputs.remarks:
        complain(f"bmrl: {remark}")
    paths = [item for item in inputs.items if isinstance(item, str)]
    for item in inputs.items:
        if not isinstance(item, str):
            complain(f"bmrl: {item.error}")
    model, found = enroll(
        options.model,
        options.name,
        paths,
        manipulation=options.manipulation,
        architecture=options.architecture,
        batch_size=options.batch_size,
        device=options.device,
        progress=progress_bar("images"),
    )
    for _, reason in found.skipped:
        complain(f"bmrl: {reason}")
    target = options.out or options.model
    save_model(model, target)
    shares = (
        (found.named, f"named {found.generator}"),
        (found.named_otherwise, "named otherwise"),
        (found.uncertain, "uncertain"),
        (found.unseen, "called unseen"),
    )
    said = ", ".join(f"{round(share * found.pictures)} {words}" for share, words in shares)
    say(f"{found.pictures} pictures of {found.generator}, each answered by what was learned from the others: {said}")
    say(f"pictures of the other generators that would be named {found.generator}: {100 * found.taken:.1f} %")
    say(f"wrote {target}: {model.config.num_generators} generators")


COMMAND = Command(
    name="enroll",
    summary="add a generator to a model, from 5 to 50 of its pictures and without training",
    function="enroll",
    add_arguments=_add_arguments,
    run=_run,
    takes={"pictures": "pictures", "out": None},
    after_stop=lambda options: f"; {options.model} is as it was",
)
