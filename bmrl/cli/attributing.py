"""The work of ``bmrl attribute``: an answer, or the reason why there is none, for each image."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from bmrl.cli.answers import Unanswered, answers_in
from bmrl.cli.inputs import images_of
from bmrl.cli.output import complain, progress_bar
from bmrl.errors import BMRLError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bmrl.inference.attribution import Attribution

__all__ = ["attribute"]


def attribute(
    paths: Sequence[str],
    *,
    model: str | None,
    server: str | None,
    threshold: float | None,
    max_error: float | None,
    batch_size: int,
    device: str,
    form: str,
) -> int:
    """Print the answers, also when the work is stopped, and return the number of images without one.

    Args:
        paths: images and folders of images.
        model: a model folder; None to ask the server.
        server: as :func:`bmrl.export.triton.remote.connect` takes it; None to ask the model.
        threshold: in 0 .. 1; None: the model's own rule.
        max_error: above 0 and below 1, for a model with a fitted decision; None: what the model says.
        batch_size: images per batch, for the model.
        device: where the model runs: ``auto`` or a device as PyTorch names it.
        form: one of :data:`bmrl.cli.answers.FORMATS`.
    """
    answers = answers_in(form)
    draw = None if form != "table" and sys.stdout.isatty() else progress_bar("images")
    failures, complaint = 0, ""
    try:
        with _opened(model, server, threshold, max_error, batch_size, device) as (generators, attribute_each):
            answers.begin(generators)
            inputs = images_of(paths)
            for remark in inputs.remarks:
                complain(f"bmrl: {remark}")
            for done, entry in enumerate(_entries(inputs.items, attribute_each), start=1):
                answers.add(entry)
                if isinstance(entry, Unanswered):
                    failures += 1
                    if entry.error != complaint:  # one server that died is one complaint
                        complain(f"bmrl: error: {entry.error}")
                    complaint = entry.error
                if draw is not None:
                    draw(done, len(inputs.items))
    finally:
        answers.finish()
    return failures


@contextlib.contextmanager
def _opened(
    model: str | None,
    server: str | None,
    threshold: float | None,
    max_error: float | None,
    batch_size: int,
    device: str,
) -> Iterator[tuple[list[str], Callable[[list[str]], Iterator[Any]]]]:
    """Yield the names of the classes, and what attributes images: the model of a folder, or that of a server."""
    if server is not None:
        from bmrl.export.triton.remote import attribute_remotely, connect
        from bmrl.inference.checks import check_rate

        if threshold is not None:
            check_rate("threshold", threshold)
        with connect(server) as client:
            names = [generator.name for generator in client.model.generators]
            yield names, lambda sources: attribute_remotely(client, sources, threshold=threshold)
    else:
        from bmrl.inference.attributor import Attributor

        attributor = Attributor(
            str(model), threshold=threshold, max_error=max_error, batch_size=batch_size, device=device
        )
        yield [generator.name for generator in attributor.model.config.generators], attributor.attribute_each


def _entries(
    items: Sequence[str | Unanswered], attribute_each: Callable[[list[str]], Iterator[Any]]
) -> Iterator[Attribution | Unanswered]:
    """Yield the entry of each item, in order.

    Where the answers end early, as those of a server that died, the remaining items have that error.
    """
    answers = attribute_each([item for item in items if isinstance(item, str)])
    done = 0
    try:
        for item in items:
            answer = next(answers) if isinstance(item, str) else item
            yield Unanswered(str(item), str(answer)) if isinstance(answer, BMRLError) else answer
            done += 1
    except BMRLError as error:
        for item in items[done:]:
            yield Unanswered(item, str(error)) if isinstance(item, str) else item
