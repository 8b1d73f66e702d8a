"""What a model says about every image of a manifest's split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bmrl._checks import check_dtype, check_integer, check_shape
from bmrl._values import check_choice
from bmrl.data.alterations import read_versions
from bmrl.data.row import SPLITS
from bmrl.errors import DataError, DTypeError, ShapeError
from bmrl.evaluation._rows import Computed, Skipped, as_manifest, compute_rows
from bmrl.images import read_image
from bmrl.inference.attribution import attributions_from_probabilities
from bmrl.inference.checks import as_probabilities, check_generators
from bmrl.inference.decider import decider_of, limits_of
from bmrl.inference.decision import Decisions, decide
from bmrl.inference.running import infer, resolve_model

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from bmrl.data.alterations import Alteration
    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.generators import Generator
    from bmrl.inference.attribution import Attribution
    from bmrl.inference.limits import Limits
    from bmrl.models import BMRL

__all__ = ["Predictions", "Skipped", "predict"]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Probabilities and embeddings of n images of a manifest, with what is known of the images.

    Attributes:
        generators: the x classes, in the order of the probabilities.
        rows: the n images that were read.
        probabilities: ``(n, x)`` floating point, rows summing to 1, on the CPU.
        embeddings: ``(n, d)`` floating point, on the CPU.
        skipped: the images that could not be read.
        scores: ``(n,)`` floating point, by which the model calls an image seen or unseen, the higher the more seen.
            None: the maximum probability.
        limits: what an image must reach for the model to name its generator; None: not known.
        labels: ``(n,)`` int64, the class of a seen image and -1 for an unseen one; follows from ``rows``.
        decisions: the most probable class of each image, its probability and the score; follows from the others.

    Raises:
        DataError: a seen row's generator is not a class of the model, or an unseen row's generator is one.
        ShapeError: the sizes differ. RangeError: the rows are not probabilities.
    """

    generators: tuple[Generator, ...]
    rows: tuple[Row, ...]
    probabilities: Tensor
    embeddings: Tensor
    skipped: tuple[Skipped, ...] = ()
    scores: Tensor | None = None
    limits: Limits | None = None
    labels: Tensor = field(init=False)
    decisions: Decisions = field(init=False)

    def __post_init__(self) -> None:
        check_generators(self.generators)
        checked = as_probabilities("probabilities", self.probabilities)
        shape = tuple(checked.shape)
        if shape != (len(self.rows), len(self.generators)):
            raise ShapeError(f"probabilities: expected {(len(self.rows), len(self.generators))}, got {shape}")
        check_shape("embeddings", self.embeddings, "images dim")
        if len(self.embeddings) != len(self.rows):
            raise ShapeError(f"embeddings: expected ({len(self.rows)}, dim), got {tuple(self.embeddings.shape)}")
        check_roles(self.rows, self.generators)
        classes = {generator.name: label for label, generator in enumerate(self.generators)}
        labels = [classes.get(row.generator, -1) for row in self.rows]
        object.__setattr__(self, "labels", torch.tensor(labels, dtype=torch.int64))
        object.__setattr__(self, "decisions", decide(checked, self.scores))

    @property
    def seen(self) -> Tensor:
        """``(n,)`` bool: whether the image's generator is a class of the model."""
        return self.labels >= 0

    @property
    def real(self) -> Tensor:
        """``(n,)`` bool: whether the image is a photograph."""
        return torch.tensor([row.manipulation == "none" for row in self.rows])

    @property
    def unseen_generators(self) -> list[str]:
        """The names of the generators that are not classes of the model, sorted."""
        classes = {generator.name for generator in self.generators}
        return sorted({row.generator for row in self.rows} - classes)

    def of(self, generator: str) -> Tensor:
        """Return ``(n,)`` bool: whether the image comes from the generator of this name."""
        return torch.tensor([row.generator == generator for row in self.rows])

    def select(self, images: Tensor) -> Predictions:
        """Return the predictions of some of the images.

        Args:
            images: ``(n,)`` bool, True for one image at least.
        """
        check_shape("images", images, "images", images=len(self.rows))
        check_dtype("images", images, torch.bool)
        rows = tuple(row for row, chosen in zip(self.rows, images.tolist(), strict=True) if chosen)
        scores = None if self.scores is None else self.scores[images]
        chosen = self.probabilities[images], self.embeddings[images]
        return Predictions(self.generators, rows, *chosen, scores=scores, limits=self.limits)

    def attributions(self, threshold: float | None = None) -> list[Attribution]:
        """Return what an :class:`~bmrl.Attributor` says of each image, by its path.

        Args:
            threshold: of the paper's rule, in 0 .. 1; None: the model's own limits.

        Raises:
            DTypeError: there are no limits, and no threshold is given.
        """
        paths = [row.path for row in self.rows]
        if threshold is not None:
            return attributions_from_probabilities(self.probabilities, self.generators, threshold, paths)
        if self.limits is None:
            raise DTypeError("threshold: expected a number for predictions without limits, got None")
        return attributions_from_probabilities(
            self.probabilities, self.generators, self.limits, paths, scores=self.scores
        )


def predict(
    model: BMRL | str | os.PathLike[str],
    data: Manifest | str | os.PathLike[str],
    *,
    split: str = "test",
    batch_size: int = 32,
    device: str | torch.device = "auto",
    read: Callable[[Any, int], Tensor] = read_image,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Run a model on one split of a data set, both seen and unseen images, in the manifest's order.

    Args:
        model: a model or its folder.
        data: a folder with ``manifest.csv``, or its manifest; seen generators must be classes of the model, unseen
            ones must not.
        split: ``train``, ``val`` or ``test``.
        batch_size: images per step, >= 1; memory grows with it, results do not depend on it.
        device: where to run, as PyTorch names devices. ``"auto"``: where a model that is passed is; one from a folder
            runs on the accelerator if there is one, and else on the CPU.
        read: turns a path and the model's image size S into uint8 ``(3, S, S)``; another function here tests the
            model on altered images.
        progress: called after each step with the number of images done and of all.

    Returns:
        The predictions; images that can't be read are in ``.skipped``.

    Raises:
        DataError: the split is empty, none of its images can be read, or its roles contradict the model's classes.
        MissingFileError: there is no such model or manifest.
        RangeError, DTypeError: an argument is out of range or of the wrong type, or the model returns NaN.
        DeviceError: there is no such device.
    """
    predictions, _, _ = predict_and_describe(
        model, as_manifest(data), None, split=split, batch_size=batch_size, device=device, read=read, progress=progress
    )
    return predictions


def predict_and_describe(
    model: BMRL | str | os.PathLike[str],
    manifest: Manifest,
    describe: Callable[[Tensor], tuple[Tensor, ...]] | None,
    *,
    split: str,
    batch_size: int,
    device: str | torch.device,
    read: Callable[[Any, int], Tensor] = read_image,
    alterations: Mapping[str, Alteration] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, dict[str, Predictions], Computed | None]:
    """Predict, and compute something else of the same images, so that each is decoded once.

    ``describe`` turns uint8 ``(batch, 3, S, S)`` into tensors with ``batch`` rows each; None means only predictions.
    ``alterations`` are applied to each image at its own resolution, in place of ``read``. All other arguments, and what
    is raised, are those of :func:`predict`.

    Returns:
        The predictions; those of each alteration, by its name; and what ``describe`` returned for the unaltered images.
    """
    check_choice("split", split, SPLITS)
    check_integer("batch_size", batch_size, least=1)
    if not callable(read):
        raise DTypeError(f"read: expected a function, got {type(read).__name__}")
    rows = manifest.select(split=split)
    if not rows:
        raise DataError(f"split: expected images in the {split} split of {manifest.root}, got none")
    network = resolve_model(model, device)
    generators = network.config.generators
    check_roles(tuple(rows), generators)

    decider, limits, altered = decider_of(network), limits_of(network), dict(alterations or {})

    def read_all(path: Any, size: int) -> Tensor:
        return read_versions(path, size, [None, *altered.values()]) if altered else read(path, size)[None]

    def compute(versions: Tensor) -> tuple[Tensor, ...]:
        answers: list[Tensor] = []
        for place, images in enumerate(versions.unbind(1)):
            output = infer(network, images)
            probabilities, scores = decider(output.logits, output.embedding)
            answers += (probabilities, scores) if place else (probabilities, scores, output.embedding.float())
        return tuple(answers) if describe is None else (*answers, *describe(versions[:, 0]))

    computed = compute_rows(
        manifest, rows, network.config.image_size, compute, batch_size=batch_size, read=read_all, progress=progress
    )
    probabilities, scores, embeddings, *others = computed.tensors

    def made(probabilities: Tensor, scores: Tensor) -> Predictions:
        given = computed.rows, probabilities, embeddings, computed.skipped
        return Predictions(generators, *given, scores=scores, limits=limits)

    pairs = zip(others[0::2], others[1::2], strict=False)
    found = {name: made(*pair) for name, pair in zip(altered, pairs, strict=False)}
    described = tuple(others[2 * len(altered) :])
    statistics = Computed(computed.rows, described, computed.skipped) if described else None
    return made(probabilities, scores), found, statistics


def check_roles(rows: tuple[Row, ...], generators: tuple[Generator, ...]) -> None:
    """Check that seen rows show classes of the model, and that unseen rows do not."""
    classes = {generator.name for generator in generators}
    for row in rows:
        if (row.role == "seen") != (row.generator in classes):
            expected = "seen generators to be" if row.role == "seen" else "unseen generators not to be"
            raise DataError(
                f"data: expected {expected} classes of the model ({', '.join(sorted(classes))}), "
                f"got {row.role} {row.generator!r} ({row.path})"
            )
