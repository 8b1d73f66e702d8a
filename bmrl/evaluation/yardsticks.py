"""Yardsticks: what features that know nothing of generators achieve on the same split, by a linear probe.

Real data sets differ in framing, exposure and compression as well as in the generator. A logistic regression on such
features measures how much of a score these differences explain; a model is worth what it adds to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bmrl._checks import check_integer
from bmrl._extras import require
from bmrl._values import check_choice, described
from bmrl.data.row import SPLITS
from bmrl.encoders import PretrainedEncoder
from bmrl.errors import ConfigError, DataError, DTypeError, MissingExtraError, MissingFileError
from bmrl.evaluation._rows import Computed, as_manifest, compute_rows
from bmrl.evaluation.image_statistics import color_spectrum_statistics
from bmrl.evaluation.measures import threshold_free_measures
from bmrl.evaluation.predictions import Predictions, check_roles
from bmrl.images import read_image
from bmrl.inference.checks import check_generators
from bmrl.ops import STATISTICS, residual_statistics
from bmrl.ops.statistics import LEAST_SIZE

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from bmrl.data.manifest import Manifest
    from bmrl.data.row import Row
    from bmrl.evaluation.summary import Summary
    from bmrl.generators import Generator

__all__ = [
    "YARDSTICKS",
    "Describe",
    "Yardstick",
    "best_yardsticks",
    "describers",
    "fit_yardsticks",
    "in_words",
    "shortcut_baseline",
]

BATCH_SIZE = 32
COMPARED = ("accuracy", "balanced_accuracy", "auroc", "oscr")
"""Metrics in which a model should be better than every yardstick."""

Describe = Callable[[Tensor], Tensor]
"""uint8 ``(batch, 3, S, S)`` to ``(batch, k)`` float64 on the CPU."""


class Yardstick(NamedTuple):
    """Features whose linear probe a model is compared with."""

    title: str
    """As a report shows it."""
    explanation: str
    """What the features are, for a reader of the report."""
    make: Callable[[], Describe]
    """Returns what computes the features; raises MissingExtraError if it can't."""
    inverse_penalty: float
    """Of the regression (C of scikit-learn), for standardized features."""
    least_size: int = 1
    """The smallest side of an image in pixels."""


def _color_spectrum() -> Describe:
    return lambda images: color_spectrum_statistics(images).double()


def _thumbnail() -> Describe:
    return lambda images: F.interpolate(images.double() / 255, (8, 8), mode="area").flatten(1)


def _residuals() -> Describe:
    return lambda images: residual_statistics(images).double()


def _color_residuals() -> Describe:
    places = torch.arange(STATISTICS["color"].stop)
    cooccurrences = STATISTICS["cooccurrences"]
    half = (cooccurrences.start + cooccurrences.stop) // 2  # the second half is of R - Y and B - Y
    kept = torch.cat((places[half : cooccurrences.stop], places[STATISTICS["color"]]))
    return lambda images: residual_statistics(images)[:, kept].double()


def _backbone() -> Describe:
    require("timm")
    encoder = PretrainedEncoder(image_size=LEAST_SIZE, embed_dim=1).eval()

    @torch.inference_mode()
    def describe(images: Tensor) -> Tensor:
        features = encoder.tower(images.float() / 255)
        numbers = [(each.mean(dim=(2, 3)), each.std(dim=(2, 3), unbiased=False)) for each in features]
        return torch.cat([number for pair in numbers for number in pair], dim=1).double()

    return describe


YARDSTICKS: dict[str, Yardstick] = {
    "color_spectrum": Yardstick(
        "Color and spectrum alone",
        "26 numbers: brightness and contrast of each color, and how strong coarse and fine detail are",
        _color_spectrum,
        1.0,
    ),
    "thumbnail": Yardstick("8 x 8 thumbnail", "192 numbers: the picture at 8 x 8 pixels", _thumbnail, 0.01),
    "color_residuals": Yardstick(
        "Residuals of color",
        "161 numbers: the finest structure of the color differences, which tell how a file was compressed",
        _color_residuals,
        0.01,
        LEAST_SIZE,
    ),
    "residuals": Yardstick(
        "Residual statistics", "465 numbers: the finest structure of brightness and color", _residuals, 0.01, LEAST_SIZE
    ),
    "backbone": Yardstick(
        "Frozen ImageNet network",
        "1,024 numbers: mean and deviation of the features of an EfficientNet-Lite0 that was never trained on faces",
        _backbone,
        0.01,
        LEAST_SIZE,
    ),
}
"""All yardsticks by name."""


def describers(names: Sequence[str], image_size: int) -> tuple[dict[str, Describe], dict[str, str]]:
    """Return what computes the features of each yardstick, and why some are left out.

    Args:
        names: of :data:`YARDSTICKS`.
        image_size: side of the images in pixels.

    Raises:
        RangeError, DTypeError: there is no such yardstick, or ``names`` is no list of names.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in _listed(names)):
        raise DTypeError(f"yardsticks: expected a list of names, got {described(names)}")
    made: dict[str, Describe] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(names):
        check_choice("yardsticks", name, YARDSTICKS)
        yardstick = YARDSTICKS[name]
        if image_size < yardstick.least_size:
            left_out[name] = f"expected images of {yardstick.least_size} px or more, got {image_size}"
            continue
        try:
            made[name] = yardstick.make()
        except (MissingExtraError, MissingFileError, ConfigError) as error:
            left_out[name] = str(error)
    return made, left_out


def _listed(names: Any) -> list[Any]:
    try:
        return list(names)
    except TypeError:
        raise DTypeError(f"yardsticks: expected a list of names, got {described(names)}") from None


def fit_yardsticks(
    data: Manifest | str | os.PathLike[str],
    generators: Sequence[Generator] | None = None,
    *,
    describe: dict[str, Describe],
    split: str = "test",
    image_size: int = 224,
    max_per_generator: int = 500,
    known: Computed | None = None,
) -> dict[str, Predictions]:
    """Fit a logistic regression on each yardstick's features of the seen train images and return its predictions.

    Features are standardized, classes weighted by the inverse of their number of images, with an L2 penalty. The fits
    are deterministic, and each image is decoded once for all of them.

    Args:
        data: a folder with ``manifest.csv``, or its manifest; its training split must hold readable seen images of at
            least two generators.
        generators: the classes in order; None: the manifest's seen generators by name. A class without training
            images always gets probability 0.
        describe: see :func:`describers`.
        split: what to predict: ``train``, ``val`` or ``test``.
        image_size: side that images are resized to first, in pixels, >= 1; take the model's, so that both see the same.
        max_per_generator: largest number of training images of one generator, >= 1; more are thinned evenly.
        known: features at ``image_size`` of images that were decoded before, a tensor for each of ``describe``; these
            images are not decoded again.

    Returns:
        Predictions for every image of ``split``, by the yardsticks' names, whose embeddings are the standardized
        features. Evaluate them with :func:`~bmrl.evaluation.summarize`, like those of a model.

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
    fitted_on = _features(manifest, train, image_size, describe, known)
    labels = [label_of[row.generator] for row in fitted_on.rows]
    _check_two_generators(fitted_on.rows)
    predicted = _features(manifest, manifest.select(split=split), image_size, describe, known)
    found = {}
    for name, trained, tested in zip(describe, fitted_on.tensors, predicted.tensors, strict=True):
        regression = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=YARDSTICKS[name].inverse_penalty, class_weight="balanced", max_iter=2000),
        )
        regression.fit(trained.numpy(), labels)
        features = tested.numpy()
        probabilities = torch.zeros(len(features), len(classes), dtype=torch.float64)
        probabilities[:, regression.classes_.tolist()] = torch.from_numpy(regression.predict_proba(features))
        standardized = torch.from_numpy(regression[0].transform(features))
        found[name] = Predictions(classes, predicted.rows, probabilities, standardized, predicted.skipped)
    return found


def shortcut_baseline(
    data: Manifest | str | os.PathLike[str],
    generators: Sequence[Generator] | None = None,
    *,
    split: str = "test",
    image_size: int = 224,
    max_per_generator: int = 500,
) -> Predictions:
    """Return the predictions of the yardstick ``color_spectrum``: what 26 numbers of color and spectrum achieve.

    Arguments and errors are those of :func:`fit_yardsticks`.
    """
    name = "color_spectrum"
    return fit_yardsticks(
        data,
        generators,
        describe={name: YARDSTICKS[name].make()},
        split=split,
        image_size=image_size,
        max_per_generator=max_per_generator,
    )[name]


def best_yardsticks(model: Summary, yardsticks: dict[str, Summary]) -> list[dict[str, Any]]:
    """Compare a model with the best yardstick in each of accuracy, balanced accuracy, AUROC and OSCR.

    Returns:
        For each metric that both have: ``metric``, ``model`` (its value), ``yardstick`` (the name of the best one),
        ``value`` (of that) and ``better``, whether the model's is higher.
    """
    found = []
    for metric in COMPARED:
        own = model.metrics.get(metric)
        values = {name: summary.metrics.get(metric) for name, summary in yardsticks.items()}
        known = {name: value for name, value in values.items() if value is not None}
        if own is None or not known:
            continue
        best = max(known, key=known.__getitem__)
        found.append(
            {"metric": metric, "model": own, "yardstick": best, "value": known[best], "better": own > known[best]}
        )
    return found


def in_words(comparison: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each entry of :func:`best_yardsticks`."""
    titles = {measure.name: measure.title for measure in threshold_free_measures()}
    return [
        f"{titles[entry['metric']]} {entry['model']:.1%}: {'better' if entry['better'] else 'not better'} than the "
        f"best yardstick, {YARDSTICKS[entry['yardstick']].title}, with {entry['value']:.1%}"
        for entry in comparison
    ]


def _features(
    manifest: Manifest, rows: list[Row], image_size: int, describe: dict[str, Describe], known: Computed | None
) -> Computed:
    """Return the readable rows and their features, a tensor ``(n, k)`` float64 for each yardstick."""
    wanted = set(rows)
    if known is None or not wanted <= {*known.rows, *(entry.row for entry in known.skipped)}:
        return compute_rows(
            manifest,
            rows,
            image_size,
            lambda images: tuple(each(images) for each in describe.values()),
            batch_size=BATCH_SIZE,
            read=read_image,
        )
    places = {row: place for place, row in enumerate(known.rows)}
    readable = tuple(row for row in rows if row in places)
    skipped = tuple(entry for entry in known.skipped if entry.row in wanted)
    kept = [places[row] for row in readable]
    return Computed(readable, tuple(tensor[kept] for tensor in known.tensors), skipped)


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
