"""From predictions to metrics: the numbers of ``metrics.json``, for a model and for what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch

from bmrl._results import Result
from bmrl.errors import DataError, DTypeError, RangeError
from bmrl.evaluation.detection import detection_metrics, real_probability
from bmrl.evaluation.measures import threshold_free_measures, threshold_measures
from bmrl.evaluation.metrics import confusion_matrix
from bmrl.evaluation.predictions import Predictions
from bmrl.inference.checks import check_thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bmrl.evaluation.measures import Measure, ThresholdMeasure

__all__ = ["Summary", "as_summary", "summarize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary(Result):
    """The metrics of one model on one split.

    Shares are numbers in 0 .. 1, an interval is ``[low, high]`` (95%, Wilson); what does not exist is None. Which
    metrics there are, and what each one says, is in :data:`bmrl.evaluation.measures.MEASURES`.

    Attributes:
        seen: ``num_images``, each metric over the seen images (such as ``accuracy``) and its interval
            (``accuracy_interval``) if it has one, ``confusion`` (counts, true class by predicted class) and
            ``per_generator`` (a list: ``generator``, ``manipulation``, ``architecture``, ``num_images``,
            ``num_correct``, and metrics such as ``recall`` with ``recall_interval``).
        unseen: ``num_images``, each metric over the unseen images (such as ``auroc``) and ``per_generator``
            (``generator``, ``manipulation``, ``architecture``, ``num_images``, metrics such as ``auroc``, those at a
            threshold such as ``rejection`` and ``rejection_interval`` with one entry per threshold, and ``named``: how
            often each class was the most probable one). None without unseen images.
        thresholds: one entry per threshold: ``threshold`` and each metric at it, such as ``seen_acceptance`` and
            ``seen_acceptance_interval``; None for those over unseen images where there are none.
        detection: ``seen`` and ``all``, each as :func:`~bmrl.evaluation.detection.detection_metrics` returns it, and
            ``reason`` None; without a real and a generated class both are None and ``reason`` says so.
    """

    seen: dict[str, Any]
    unseen: dict[str, Any] | None
    thresholds: list[dict[str, Any]]
    detection: dict[str, Any] | None = None

    @property
    def metrics(self) -> dict[str, float | None]:
        """Each metric by name, in the order of the table; one at a threshold is named such as ``seen_acceptance@0.7``.

        A metric that this summary does not have is None.
        """
        sections = {"seen": self.seen, "unseen": self.unseen or {}}
        found: dict[str, float | None] = {}
        for entry in threshold_free_measures():
            found[entry.name] = sections[entry.over].get(entry.name)
        for values in self.thresholds:
            for at in threshold_measures():
                found[at.name_at(values["threshold"])] = values.get(at.name)
        return found

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Summary:
        """Return the summary that ``to_dict()`` of one, or the content of a ``metrics.json``, describes.

        Raises:
            DataError: ``content`` is something else.
        """
        if not isinstance(content, Mapping):
            raise DataError(f"metrics: expected the content of a metrics.json, got {type(content).__name__}")
        try:
            unseen, thresholds = content["unseen"], [dict(entry) for entry in content["thresholds"]]
            made = Summary(
                seen=dict(content["seen"]),
                unseen=None if unseen is None else dict(unseen),
                thresholds=thresholds,
                detection=content.get("detection"),
            )
            numbers = [entry["threshold"] for entry in thresholds] + list(made.metrics.values())
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"metrics: expected the content of a metrics.json, got one without {error}") from error
        wrong = [value for value in numbers if value is not None and not isinstance(value, Real)]
        if wrong:
            raise DataError(f"metrics: expected numbers or null, got {wrong[0]!r}")
        return made


def as_summary(value: Summary | Mapping[str, Any]) -> Summary:
    """Return a summary, made from plain data where that is given.

    Raises:
        DataError: ``value`` is neither.
    """
    return value if isinstance(value, Summary) else Summary.from_dict(value)


def summarize(predictions: Predictions, thresholds: Sequence[float]) -> Summary:
    """Compute every metric of an evaluation.

    Args:
        predictions: with at least one seen image.
        thresholds: one or more, each in 0 .. 1.

    Raises:
        DataError: there is no seen image. RangeError: no threshold is given, or one lies outside 0 .. 1.
        DTypeError: an argument has the wrong type.

    Example:
        >>> import torch
        >>> from bmrl.data.row import Row
        >>> from bmrl.evaluation import Predictions
        >>> from bmrl.generators import Generator
        >>> row = Row("a.png", "ddpm", "EFS", "diffusion", "seen", "test", "a")
        >>> classes = (Generator(name="ddpm", manipulation="EFS", architecture="diffusion"),)
        >>> summary = summarize(Predictions(classes, (row,), torch.ones(1, 1), torch.zeros(1, 4)), [0.7])
        >>> summary.metrics["accuracy"], summary.metrics["seen_acceptance@0.7"], summary.metrics["auroc"]
        (1.0, 1.0, None)
    """
    thresholds = check_thresholds(thresholds)
    if not isinstance(predictions, Predictions):
        raise DTypeError(f"predictions: expected Predictions, got {type(predictions).__name__}")
    if not predictions.seen.any():
        raise DataError("predictions: expected at least one image of a seen generator, got unseen ones only")
    return Summary(
        seen=_seen(predictions, thresholds),
        unseen=None if predictions.seen.all() else _unseen(predictions, thresholds),
        thresholds=[_at_threshold(predictions, threshold) for threshold in thresholds],
        detection=_detection(predictions),
    )


def _seen(predictions: Predictions, thresholds: Sequence[float]) -> dict[str, Any]:
    confusion = confusion_matrix(predictions.probabilities[predictions.seen], predictions.labels[predictions.seen])
    per_generator = [
        {
            "generator": generator.name,
            "manipulation": generator.manipulation,
            "architecture": generator.architecture,
            "num_images": int(counts.sum()),
            "num_correct": int(counts[label]),
        }
        | _per_generator(predictions, predictions.of(generator.name), thresholds, "seen")
        for label, (generator, counts) in enumerate(zip(predictions.generators, confusion, strict=True))
    ]
    return {
        "num_images": int(predictions.seen.sum()),
        **_values(predictions, threshold_free_measures("seen")),
        "confusion": confusion.tolist(),
        "per_generator": per_generator,
    }


def _unseen(predictions: Predictions, thresholds: Sequence[float]) -> dict[str, Any]:
    examples = {row.generator: row for row in predictions.rows if row.role == "unseen"}
    per_generator = []
    for name in predictions.unseen_generators:
        images = predictions.of(name)
        named = torch.bincount(predictions.decisions.labels[images], minlength=len(predictions.generators))
        per_generator.append(
            {
                "generator": name,
                "manipulation": examples[name].manipulation,
                "architecture": examples[name].architecture,
                "num_images": int(images.sum()),
                **_per_generator(predictions, predictions.seen | images, thresholds, "unseen"),
                "named": named.tolist(),
            }
        )
    return {
        "num_images": int((~predictions.seen).sum()),
        **_values(predictions, threshold_free_measures("unseen")),
        "per_generator": per_generator,
    }


def _at_threshold(predictions: Predictions, threshold: float) -> dict[str, Any]:
    found: dict[str, Any] = {"threshold": float(threshold)}
    for entry in threshold_measures():
        found |= _value(entry, entry.name, entry.value(predictions, threshold), predictions)
    return found


def _per_generator(
    predictions: Predictions, images: torch.Tensor, thresholds: Sequence[float], over: str
) -> dict[str, Any]:
    """Return the metrics of one generator, whose images (next to all seen ones if it is unseen) are given."""
    mine = predictions.select(images) if images.any() else None
    found: dict[str, Any] = {}
    for entry in threshold_free_measures(over):
        if entry.per_generator is not None:
            value = None if mine is None else entry.value(mine)
            found |= _value(entry, entry.per_generator.name, value, mine)
    for at in threshold_measures(over):
        if at.per_generator is not None:
            values = [None if mine is None else at.value(mine, threshold) for threshold in thresholds]
            parts = [_value(at, at.per_generator.name, value, mine) for value in values]
            found |= {key: [part[key] for part in parts] for key in parts[0]}
    return found


def _values(predictions: Predictions, entries: list[Measure]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        found |= _value(entry, entry.name, entry.value(predictions), predictions)
    return found


def _value(
    entry: Measure | ThresholdMeasure, name: str, value: float | None, predictions: Predictions | None
) -> dict[str, Any]:
    """Return a value by its name, and its interval if it has one."""
    if not entry.has_interval:
        return {name: value}
    interval = None if predictions is None else entry.interval(value, predictions)
    return {name: value, f"{name}_interval": interval}


def _detection(predictions: Predictions) -> dict[str, Any]:
    try:
        probability_real = real_probability(predictions.probabilities, predictions.generators)
    except RangeError as error:
        return {"seen": None, "all": None, "reason": str(error)}
    real, seen = predictions.real, predictions.seen
    return {
        "seen": detection_metrics(probability_real[seen], real[seen]),
        "all": detection_metrics(probability_real, real),
        "reason": None,
    }
