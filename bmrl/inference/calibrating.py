"""Fitting a model's decision after its training: temperature, score, and the answers that limits follow from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import torch

from bmrl._checks import check_integer
from bmrl._values import check_choice, described
from bmrl.data.alterations import ALTERATIONS, read_versions
from bmrl.data.manifest import Manifest
from bmrl.data.row import collections_by_generator
from bmrl.errors import DataError, DTypeError
from bmrl.inference.calibration import check_calibratable, fit_temperature, limits_for
from bmrl.inference.decider import Decider
from bmrl.inference.reading import read_batches
from bmrl.inference.running import infer, resolve_model
from bmrl.inference.scores import SCORES, FittingData
from bmrl.models import CalibrationAnswers, FittedDecision, References

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bmrl.data.alterations import Alteration
    from bmrl.data.row import Row
    from bmrl.models import BMRL

__all__ = ["AS_IT_IS", "CALIBRATED_ALTERATIONS", "calibrate", "chosen_alterations"]

AS_IT_IS = "as it is"
"""The name of the version that is not altered."""

CALIBRATED_ALTERATIONS = ("jpeg75", "half", "crop")
"""What the calibration pictures are altered by, unless it is chosen."""

MOST_REFERENCES = 100
"""Training pictures of a class whose embeddings are kept with the decision, for enrolling generators later."""

MOST_HELD_OUT = 2000
"""The same of all calibration pictures together."""

MOST_COLLECTIONS = 1000
"""Collections of training pictures that are kept for a class."""

MOST_FITTED = 20_000
"""Training pictures that a score is fitted to, evenly over the classes; more would not change it."""


def calibrate(
    model: BMRL | str | os.PathLike[str],
    data: Manifest | str | os.PathLike[str],
    *,
    score: str = "neighbors",
    alterations: Sequence[str] = CALIBRATED_ALTERATIONS,
    accept: float | None = None,
    typical: float | None = None,
    max_error: float | None = None,
    centers: Tensor | None = None,
    batch_size: int = 32,
    device: str | torch.device = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> FittedDecision:
    """Fit how a model decides whether an image is seen, and keep it with the model.

    The score is fitted to the training images, each in one of the versions in turn, as they are or altered as pictures
    on the web are: a score that knew only pictures as they are would take the alteration for the trace of another
    generator. The temperature is fitted to the validation images. What the model answers about these in all versions
    is kept: the limits for what is asked of the decision follow from it. No weight changes, and no image of the test
    split or of an unseen generator is looked at.

    Afterwards ``model.decision`` is what is returned, and ``model.config.decision`` names the score and what is asked.
    A folder is written again with both.

    Args:
        model: a model, changed in place, or its folder.
        data: a folder with ``manifest.csv``, or its manifest: seen ``train`` images, and ``val`` images of persons or
            videos that are not among them.
        score: a name of :data:`bmrl.inference.scores.SCORES`.
        alterations: names of :data:`bmrl.data.ALTERATIONS`: limits keep their guarantee for images altered so, and
            the score knows them.
        accept: share of seen pictures that are not called unseen; None keeps that of ``config.decision``, as below.
        typical: share of seen pictures whose score is high enough for a name, at most ``accept``.
        max_error: share of seen pictures that may get a wrong name.
        centers: ``(num_generators, embed_dim)``, those that the DFACC loss learned, for ``center_distance``; None takes
            the mean embedding of each class.
        batch_size: images per step, >= 1.
        device: where to run, as PyTorch names devices; ``"auto"`` leaves a model that is passed where it is, and puts
            one from a folder on the accelerator if there is one, and else on the CPU.
        progress: called after each step with the number of images done and of all.

    Returns:
        The decision.

    Raises:
        DataError: there are no training images of a class, or no validation images, or none can be read.
        ConfigError: the validation images are too few for what is asked for; nothing is changed then.
        RangeError, DTypeError: an argument is out of range or of the wrong type.
        MissingFileError, ModelFolderError, DeviceError: as of :class:`~bmrl.inference.Attributor`.
    """
    from bmrl.models import save_model

    check_choice("score", score, SCORES)
    chosen = chosen_alterations(alterations)
    check_integer("batch_size", batch_size, least=1)
    manifest = data if isinstance(data, Manifest) else Manifest.read(data)
    network = resolve_model(model, device)
    asked_for = {"score": score, "accept": accept, "typical": typical, "max_error": max_error}
    changes = {f"decision.{name}": value for name, value in asked_for.items() if value is not None}
    config = network.config.with_changes(changes)
    labels = {generator.name: label for label, generator in enumerate(network.config.generators)}
    rows = {split: _rows(manifest, split, labels) for split in ("train", "val")}
    check_calibratable(len(rows["val"]), config.decision)
    versions: dict[str, Alteration | None] = {AS_IT_IS: None, **chosen}
    count = _Progress(progress, len(rows["train"]) + len(rows["val"]))

    def answers(split: str, versions_of: Callable[[int], list[Alteration | None]]) -> _Answers:
        return _answers(network, manifest, rows[split], labels, versions_of, batch_size, count)

    every = list(versions.values())
    fitted_to, checked = answers("train", lambda place: [every[place % len(every)]]), answers("val", lambda _: every)
    temperature = fit_temperature(checked.logits.flatten(0, 1), checked.labels.repeat(len(versions)))
    decided_on = FittingData(
        logits=checked.logits.flatten(0, 1) / temperature,
        embeddings=checked.embeddings.flatten(0, 1),
        labels=checked.labels.repeat(len(versions)),
        sources=None if checked.sources is None else checked.sources * len(versions),
    )
    fitting = FittingData(
        logits=fitted_to.logits[0] / temperature,
        embeddings=fitted_to.embeddings[0],
        labels=fitted_to.labels,
        centers=None if centers is None else centers.detach().float().cpu(),
        sources=fitted_to.sources,
        held_out=decided_on,
    )
    decider = Decider(SCORES[score].fit(fitting), temperature)
    with torch.no_grad():
        decided = [decider(*version) for version in zip(checked.logits, checked.embeddings, strict=True)]
    largest = torch.stack([probabilities for probabilities, _ in decided]).max(dim=2)
    decision = FittedDecision(
        score=score,
        state=decider.score.state_dict(),
        temperature=temperature,
        answers=CalibrationAnswers(
            versions=tuple(versions),
            scores=torch.stack([scores for _, scores in decided]),
            probabilities=largest.values,
            right=largest.indices == checked.labels,
        ),
        references=_references(fitted_to, checked),
        collections=_collections(rows["train"]),
    )
    asked = config.decision
    limits_for(decision, accept=asked.accept, typical=asked.typical, max_error=asked.max_error)
    network.config, network.decision = config, decision
    if isinstance(model, str | os.PathLike):
        save_model(network, model)
    return decision


def chosen_alterations(names: Sequence[str]) -> dict[str, Alteration]:
    """Return alterations by name.

    Raises:
        RangeError, DTypeError: there is no such alteration, or ``names`` is no list of names.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise DTypeError(f"alterations: expected a list of names, got {described(names)}")
    for name in names:
        check_choice("alterations", name, ALTERATIONS)
    return {name: ALTERATIONS[name] for name in names}


class _Answers(NamedTuple):
    """What a model answered about n images in v versions, on the CPU in float32."""

    logits: Tensor
    """``(v, n, x)``."""
    embeddings: Tensor
    """``(v, n, d)``."""
    labels: Tensor
    """``(n,)`` int64."""
    sources: tuple[str, ...] | None
    """Where each image comes from; None where the manifest does not say."""


def _references(fitted_to: _Answers, checked: _Answers) -> References:
    """Return the embeddings to keep: of each class and of all calibration pictures at most so many, drawn by lot.

    Every fourth picture may be in one and the same version.
    """
    rng = torch.Generator().manual_seed(0)

    def drawn(places: Tensor, most: int) -> Tensor:
        return places[torch.randperm(len(places), generator=rng)[:most].sort().values]

    by_class = [(fitted_to.labels == label).nonzero()[:, 0] for label in range(fitted_to.logits.shape[2])]
    kept = torch.cat([drawn(places, MOST_REFERENCES) for places in by_class])
    held_out = drawn(torch.arange(len(checked.labels)), MOST_HELD_OUT)
    return References(
        embeddings=fitted_to.embeddings[0, kept],
        labels=fitted_to.labels[kept],
        held_out=checked.embeddings[:, held_out],
        held_out_labels=checked.labels[held_out],
    )


def _collections(rows: list[Row]) -> dict[str, tuple[str, ...]]:
    """Return those of each class; of one with too many, which must be files, none."""
    found = collections_by_generator(rows).items()
    return {name: collections if len(collections) <= MOST_COLLECTIONS else () for name, collections in found}


class _Progress:
    """Counts the images of both splits together."""

    def __init__(self, call: Callable[[int, int], None] | None, total: int) -> None:
        self._call, self._done, self._total = call, 0, total

    def add(self, images: int) -> None:
        self._done += images
        if self._call is not None:
            self._call(self._done, self._total)


def _rows(manifest: Manifest, split: str, labels: dict[str, int]) -> list[Row]:
    """Return seen rows of a split, at most :data:`MOST_FITTED`, evenly over the classes, once they are known to fit.

    Raises:
        DataError: none, or one of a generator that is not a class of the model.
    """
    by_class: dict[str, list[Row]] = {name: [] for name in labels}
    for row in manifest.select(split=split, role="seen"):
        if row.generator not in by_class:
            raise DataError(
                f"data: expected seen generators to be classes of the model ({', '.join(labels)}), "
                f"got {row.generator!r} ({row.path})"
            )
        by_class[row.generator].append(row)
    absent = [name for name, rows in by_class.items() if not rows]
    if absent and (split == "train" or len(absent) == len(labels)):
        who = f"of {absent[0]}" if split == "train" else "of the model's classes"
        raise DataError(f"data: expected {split} images {who} in {manifest.root}, got none")
    share = -(-MOST_FITTED // len(labels))
    return [row for rows in by_class.values() for row in rows[:: max(1, -(-len(rows) // share))]]


def _answers(
    model: BMRL,
    manifest: Manifest,
    rows: list[Row],
    labels: dict[str, int],
    versions_of: Callable[[int], list[Alteration | None]],
    batch_size: int,
    count: _Progress,
) -> _Answers:
    """Run the model on the images that can be read, in the versions for their place among ``rows``."""
    places = {row: place for place, row in enumerate(rows)}

    def read(row: Row, size: int) -> Tensor:
        return read_versions(manifest.image_path(row), size, versions_of(places[row]), name=row.path)

    kept: list[Row] = []
    parts: list[tuple[Tensor, Tensor]] = []
    problem = ""
    for batch in read_batches(rows, model.config.image_size, batch_size, read=read):
        for row, item in zip(batch.sources, batch.items, strict=True):
            if isinstance(item, int):
                kept.append(row)
            else:
                problem = problem or str(item)
        if batch.images is not None:
            outputs = [infer(model, images) for images in batch.images.unbind(1)]
            parts.append(
                (
                    torch.stack([output.logits.float().cpu() for output in outputs]),
                    torch.stack([output.embedding.float().cpu() for output in outputs]),
                )
            )
        count.add(len(batch.items))
    if not parts:
        raise DataError(f"data: expected readable images in {manifest.root}, got none; first: {problem}")
    sources = tuple(row.collection for row in kept)
    found = torch.tensor([labels[row.generator] for row in kept])
    return _Answers(
        logits=torch.cat([logits for logits, _ in parts], dim=1),
        embeddings=torch.cat([embeddings for _, embeddings in parts], dim=1),
        labels=found,
        sources=sources if all(sources) else None,
    )
