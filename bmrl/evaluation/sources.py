"""Controls within one source: between pictures of one collection, a model can hardly score by telling files apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bmrl.evaluation.intervals import wilson_interval
from bmrl.evaluation.metrics import auroc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from bmrl.evaluation.predictions import Predictions

__all__ = ["within_sources"]


def within_sources(predictions: Predictions, trained: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what a model knows that the source of a picture does not tell.

    A source is a collection, see :attr:`bmrl.data.Row.collection`.

    Args:
        predictions: of the tested images.
        trained: by the name of a class, the collections that its training images come from.

    Returns:
        * ``reason``: why nothing can be said of sources, or None; ``reasons``: why one of ``pairs``, ``unseen`` and
          ``new`` is empty, by its name.
        * ``families``, which need no sources: for each manipulation of two or more classes with tested images,
          ``manipulation``, ``classes``, ``num_images`` and the ``accuracy`` when only these classes may be named, with
          its ``accuracy_interval``.
        * ``pairs``: for each source with tested images of photographs and of seen generators, ``source``, the
          ``classes`` of the model that it has, the same three numbers, and ``recall`` by class.
        * ``unseen``: for each unseen generator and source with seen photographs, ``generator``, ``source``,
          ``num_images`` and the ``auroc`` of those photographs against it.
        * ``new``: for each seen class with tested images of a source that it has no training image of, ``generator``,
          ``source``, ``num_images``, ``accuracy`` and the share ``rejected`` as unseen (None without limits).
    """
    places = [row.collection for row in predictions.rows]
    families = _families(predictions)
    if not any(places):
        return _nothing(families, "the manifest has no column source, or an empty one")
    found: dict[str, Any] = {
        "reason": None,
        "reasons": {},
        "families": families,
        "pairs": [entry for source in _named(places) for entry in _pair(predictions, places, source)],
        "unseen": [entry for source in _named(places) for entry in _unseen(predictions, places, source)],
        "new": [entry for source in _named(places) for entry in _new(predictions, places, source, trained)],
    }
    found["reasons"] = {name: reason for name, reason in _WHY.items() if not found[name]}
    if len(found["reasons"]) == len(_WHY):
        return _nothing(families, "no source has both photographs and generated images, and none is new to a class")
    return found


_WHY = {
    "pairs": "no source has tested images of both photographs and generators that the model knows",
    "unseen": "no unseen generator shares a source with photographs that the model knows",
    "new": "no seen class has tested images of a source that it was not trained on",
}


def _nothing(families: list[dict[str, Any]], reason: str) -> dict[str, Any]:
    return {"reason": reason, "reasons": {}, "families": families, "pairs": [], "unseen": [], "new": []}


def _families(predictions: Predictions) -> list[dict[str, Any]]:
    found = []
    manipulations = [generator.manipulation for generator in predictions.generators]
    for manipulation in dict.fromkeys(manipulations):
        kept = torch.tensor([label for label, other in enumerate(manipulations) if other == manipulation])
        images = predictions.seen & torch.isin(predictions.labels, kept)
        tested = predictions.labels[images].unique()
        if len(tested) < 2:
            continue
        entry = {"manipulation": manipulation, "classes": [predictions.generators[label].name for label in kept]}
        found.append(entry | _accuracy(predictions, images, kept))
    return found


def _accuracy(predictions: Predictions, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return ``num_images``, and the accuracy when only some classes may be named, with its interval."""
    named = labels[predictions.probabilities[images][:, labels].argmax(dim=1)]
    right, count = int((named == predictions.labels[images]).sum()), int(images.sum())
    return {"num_images": count, "accuracy": right / count, "accuracy_interval": list(wilson_interval(right, count))}


def _named(places: Sequence[str]) -> list[str]:
    return sorted(set(places) - {""})


def _of(places: Sequence[str], source: str) -> Tensor:
    return torch.tensor([place == source for place in places])


def _pair(predictions: Predictions, places: Sequence[str], source: str) -> list[dict[str, Any]]:
    images = _of(places, source) & predictions.seen
    labels = sorted(set(predictions.labels[images].tolist()))
    real = [label for label in labels if predictions.generators[label].manipulation == "none"]
    if not real or len(labels) == len(real):
        return []
    kept = torch.tensor(labels)
    named = kept[predictions.probabilities[images][:, kept].argmax(dim=1)]
    right = named == predictions.labels[images]
    recalls = {
        predictions.generators[label].name: float(right[predictions.labels[images] == label].double().mean())
        for label in labels
    }
    return [
        {
            "source": source,
            "classes": list(recalls),
            **_accuracy(predictions, images, kept),
            "recall": recalls,
        }
    ]


def _unseen(predictions: Predictions, places: Sequence[str], source: str) -> list[dict[str, Any]]:
    here = _of(places, source)
    photographs = here & predictions.seen & predictions.real
    found = []
    for name in predictions.unseen_generators:
        images = here & predictions.of(name)
        if photographs.any() and images.any():
            scores = predictions.decisions.scores
            value = auroc(scores[photographs], scores[images])
            found.append({"generator": name, "source": source, "num_images": int(images.sum()), "auroc": value})
    return found


def _new(
    predictions: Predictions, places: Sequence[str], source: str, trained: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    found = []
    for label, generator in enumerate(predictions.generators):
        images = _of(places, source) & (predictions.labels == label)
        known = trained.get(generator.name, ())
        if not images.any() or not known or source in known:
            continue
        chosen = predictions.select(images)
        right = chosen.decisions.labels == label
        verdicts = None if chosen.limits is None else chosen.decisions.verdicts(chosen.limits)
        found.append(
            {
                "generator": generator.name,
                "source": source,
                "num_images": len(chosen.rows),
                "accuracy": float(right.double().mean()),
                "rejected": None if verdicts is None else verdicts.count("unseen") / len(verdicts),
            }
        )
    return found
