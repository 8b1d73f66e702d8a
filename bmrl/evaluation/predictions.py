"""What a model says about every image of a manifest's split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bmrl.errors import DataError, ShapeError
from bmrl.evaluation._inference import infer, resolve_model
from bmrl.evaluation._inputs import as_probabilities
from bmrl.evaluation._rows import Skipped, compute_rows
from bmrl.images import read_image

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from bmrl.data.manifest import Manifest, Row
    from bmrl.models import BMRL, Generator

__all__ = ["Predictions", "Skipped", "predict"]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Probabilities and embeddings of n images of a manifest, beside what is known of them.

    Attributes:
        generators: the x classes, in the order of the probabilities.
        rows: the n images that were read.
        probabilities: ``(n, x)`` floating point, rows summing to 1, on the CPU.
        embeddings: ``(n, d)`` floating point, on the CPU.
        skipped: the images that could not be read.
        labels: ``(n,)`` int64: the class of a seen image, -1 for an unseen one; follows from the rest.

    Raises:
        DataError: a seen row's generator is no class of the model, or an unseen row's generator is one.
        ShapeError: the sizes differ. RangeError: the rows are no probabilities.
    """

    generators: tuple[Generator, ...]
    rows: tuple[Row, ...]
    probabilities: Tensor
    embeddings: Tensor
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(as_probabilities("probabilities", self.probabilities).shape)
        if shape != (len(self.rows), len(self.generators)):
            raise ShapeError(f"probabilities: expected {(len(self.rows), len(self.generators))}, got {shape}")
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.rows):
            raise ShapeError(f"embeddings: expected ({len(self.rows)}, dim), got {tuple(self.embeddings.shape)}")
        check_roles(self.rows, self.generators)

    @property
    def labels(self) -> Tensor:
        """``(n,)`` int64: the class of each seen image, -1 for an unseen one."""
        classes = {generator.name: label for label, generator in enumerate(self.generators)}
        return torch.tensor([classes.get(row.generator, -1) for row in self.rows], dtype=torch.int64)

    @property
    def seen(self) -> Tensor:
        """``(n,)`` bool: whether the model was trained on the image's generator."""
        return self.labels >= 0

    @property
    def real(self) -> Tensor:
        """``(n,)`` bool: whether the image is a photograph."""
        return torch.tensor([row.manipulation == "none" for row in self.rows])

    def of(self, generator: str) -> Tensor:
        """Return ``(n,)`` bool: whether the image comes from the generator of this name."""
        return torch.tensor([row.generator == generator for row in self.rows])


def predict(
    model: BMRL | str | os.PathLike[str],
    manifest: Manifest,
    *,
    split: str = "test",
    batch_size: int = 32,
    device: str | torch.device | None = None,
    read: Callable[[Any, int], Tensor] = read_image,
) -> Predictions:
    """Run a model over one split of a manifest, seen and unseen images alike, in the manifest's order.

    Args:
        model: a model or its folder.
        manifest: its seen generators must be classes of the model, its unseen ones must not.
        split: ``train``, ``val`` or ``test``.
        batch_size: images a step; memory grows with it, results do not depend on it.
        device: where to run; None: where the model is (from a folder: the GPU if there is one).
        read: turns a path and the model's image size S into uint8 ``(3, S, S)``; another function here tests the
            model on altered images.

    Returns:
        The predictions; images that can't be read are in ``.skipped``.

    Raises:
        DataError: the split is empty, none of its images can be read, or its roles contradict the model's classes.
    """
    rows = manifest.select(split=split)
    if not rows:
        raise DataError(f"split: expected images in the {split} split of {manifest.root}, got none")
    network = resolve_model(model, device)
    check_roles(tuple(rows), network.config.generators)

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        output = infer(network, images)
        return output.probabilities, output.embedding.float()

    computed = compute_rows(manifest, rows, network.config.image_size, compute, batch_size=batch_size, read=read)
    probabilities, embeddings = computed.tensors
    return Predictions(network.config.generators, computed.rows, probabilities, embeddings, computed.skipped)


def check_roles(rows: tuple[Row, ...], generators: tuple[Generator, ...]) -> None:
    """Check that seen rows show classes of the model, and that unseen rows do not."""
    classes = {generator.name for generator in generators}
    for row in rows:
        if (row.role == "seen") != (row.generator in classes):
            expected = "seen generators to be" if row.role == "seen" else "unseen generators not to be"
            raise DataError(
                f"manifest: expected {expected} classes of the model ({', '.join(sorted(classes))}), "
                f"got {row.role} {row.generator!r} ({row.path})"
            )
