"""The shortcut baseline: what color and spectrum alone achieve on the same split.

Real data sets differ in framing, exposure and compression as well as in the generator. A logistic regression on
:func:`~bmrl.evaluation.image_statistics.color_spectrum_statistics` measures how much of a score such differences
explain; a model is worth what it adds to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bmrl._checks import check_integer
from bmrl._values import check_choice
from bmrl.data.row import SPLITS
from bmrl.errors import DataError, MissingExtraError
from bmrl.evaluation._rows import Computed, as_manifest, compute_rows
from bmrl.evaluation.image_statistics import color_spectrum_statistics
from bmrl.evaluation.predictions import Predictions, check_roles
from bmrl.images import read_image
from bmrl.inference.checks import check_generators

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from torch import Tensor

    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.generators import Generator

__all__ = ["shortcut_baseline"]

BATCH_SIZE = 32


def shortcut_baseline(
    data: Manifest | str | os.PathLike[str],
    generators: Sequence[Generator] | None = None,
    *,
    split: str = "test",
    image_size: int = 224,
    max_per_generator: int = 500,
    known: Computed | None = None,
) -> Predictions:
    """Fit a logistic regression on 26 statistics of the seen train images and return its predictions.

    Statistics are standardized, classes weighted by the inverse of their number of images, the L2 penalty is
    scikit-learn's default (C = 1). The fit is deterministic.

    Args:
        data: a folder with ``manifest.csv``, or its manifest; its training split must hold readable seen images of at
            least two generators.
        generators: the classes in order; None: the manifest's seen generators by name. A class without training
            images always gets probability 0.
        split: what to predict: ``train``, ``val`` or ``test``.
        image_size: side that images are resized to first, in pixels, >= 1; take the model's, so that both see the same.
        max_per_generator: largest number of training images of one generator, >= 1; more are thinned evenly.
        known: statistics at ``image_size`` of images that were decoded before; these are not decoded again.

    Returns:
        Predictions for every image of ``split``, its embeddings being the ``(n, 26)`` standardized statistics.
        Evaluate them with :func:`~bmrl.evaluation.summarize`, like those of a model.

    Raises:
        DataError: there is too little to fit on or nothing to predict, or roles contradict ``generators``.
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    check_choice("split", split, SPLITS)
    check_integer("image_size", image_size, least=1)
    check_integer("max_per_generator", max_per_generator, least=1)
    manifest = as_manifest(data)
    classes = tuple(manifest.generators(role="seen") if generators is None else generators)
    check_generators(classes)
    label_of = {generator.name: label for label, generator in enumerate(classes)}
    train = _evenly(manifest.select(split="train", role="seen"), max_per_generator)
    check_roles(tuple(train), classes)
    _check_two_generators(train)
    fitted_on = _statistics(manifest, train, image_size, known)
    labels = [label_of[row.generator] for row in fitted_on.rows]
    _check_two_generators(fitted_on.rows)
    predicted = _statistics(manifest, manifest.select(split=split), image_size, known)
    regression = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    regression.fit(fitted_on.tensors[0].numpy(), labels)
    features = predicted.tensors[0].numpy()
    probabilities = torch.zeros(len(features), len(classes), dtype=torch.float64)
    probabilities[:, regression.classes_.tolist()] = torch.from_numpy(regression.predict_proba(features))
    standardized = torch.from_numpy(regression[0].transform(features))
    return Predictions(classes, predicted.rows, probabilities, standardized, predicted.skipped)


def statistics_of(images: Tensor) -> Tensor:
    """Return ``(batch, 26)`` float64: what the regression knows of each image."""
    return color_spectrum_statistics(images).double()


def _statistics(manifest: Manifest, rows: list[Row], image_size: int, known: Computed | None) -> Computed:
    """Return the readable rows and their ``(n, 26)`` float64 statistics."""
    wanted = set(rows)
    if known is None or not wanted <= {*known.rows, *(entry.row for entry in known.skipped)}:
        return compute_rows(
            manifest,
            rows,
            image_size,
            lambda images: (statistics_of(images),),
            batch_size=BATCH_SIZE,
            read=read_image,
        )
    places = {row: place for place, row in enumerate(known.rows)}
    readable = tuple(row for row in rows if row in places)
    skipped = tuple(entry for entry in known.skipped if entry.row in wanted)
    return Computed(readable, (known.tensors[0][[places[row] for row in readable]],), skipped)


def _check_two_generators(rows: Sequence[Row]) -> None:
    num_generators = len({row.generator for row in rows})
    if num_generators < 2:
        raise DataError(f"data: expected training images of at least two seen generators, got {num_generators}")


def _evenly(rows: list[Row], limit: int) -> list[Row]:
    """Keep at most ``limit`` rows of each generator, evenly spaced in the manifest's order."""
    by_generator: dict[str, list[Row]] = {}
    for row in rows:
        by_generator.setdefault(row.generator, []).append(row)
    kept = []
    for mine in by_generator.values():
        count = min(limit, len(mine))
        kept += [mine[index * len(mine) // count] for index in range(count)]
    return kept
