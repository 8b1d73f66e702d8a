"""What a model says about every image of a manifest's split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bmrl._checks import check_dtype, check_integer, check_shape
from bmrl._values import check_choice
from bmrl.data.row import SPLITS
from bmrl.errors import DataError, DTypeError, ShapeError
from bmrl.evaluation._rows import Computed, Skipped, as_manifest, compute_rows
from bmrl.images import read_image
from bmrl.inference.attribution import attributions_from_probabilities
from bmrl.inference.checks import as_probabilities, check_generators
from bmrl.inference.decision import Decisions, decide_checked
from bmrl.inference.running import infer, resolve_model

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.generators import Generator
    from bmrl.inference.attribution import Attribution
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
        labels: ``(n,)`` int64, the class of a seen image and -1 for an unseen one; follows from ``rows``.
        decisions: the most probable class of each image and its probability; follows from ``probabilities``.

    Raises:
        DataError: a seen row's generator is not a class of the model, or an unseen row's generator is one.
        ShapeError: the sizes differ. RangeError: the rows are not probabilities.
    """

    generators: tuple[Generator, ...]
    rows: tuple[Row, ...]
    probabilities: Tensor
    embeddings: Tensor
    skipped: tuple[Skipped, ...] = ()
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
        object.__setattr__(self, "decisions", decide_checked(checked))

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
        return Predictions(self.generators, rows, self.probabilities[images], self.embeddings[images])

    def attributions(self, threshold: float) -> list[Attribution]:
        """Return what an :class:`~bmrl.Attributor` with this threshold says of each image, by its path."""
        paths = [row.path for row in self.rows]
        return attributions_from_probabilities(self.probabilities, self.generators, threshold, paths)


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
    predictions, _ = predict_and_describe(
        model, as_manifest(data), None, split=split, batch_size=batch_size, device=device, read=read, progress=progress
    )
    return predictions


def predict_and_describe(
    model: BMRL | str | os.PathLike[str],
    manifest: Manifest,
    describe: Callable[[Tensor], Tensor] | None,
    *,
    split: str,
    batch_size: int,
    device: str | torch.device,
    read: Callable[[Any, int], Tensor] = read_image,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, Computed | None]:
    """Predict, and compute something else of the same images, so that each is decoded once.

    ``describe`` turns uint8 ``(batch, 3, S, S)`` into a tensor with ``batch`` rows; None means only predictions. All
    other arguments, and what is raised, are those of :func:`predict`.

    Returns:
        The predictions, and what ``describe`` returned for their rows.
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

    def compute(images: Tensor) -> tuple[Tensor, ...]:
        output = infer(network, images)
        answers = output.probabilities, output.embedding.float()
        return answers if describe is None else (*answers, describe(images))

    computed = compute_rows(
        manifest, rows, network.config.image_size, compute, batch_size=batch_size, read=read, progress=progress
    )
    probabilities, embeddings, *described = computed.tensors
    predictions = Predictions(generators, computed.rows, probabilities, embeddings, computed.skipped)
    return predictions, Computed(computed.rows, tuple(described), computed.skipped) if described else None


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
