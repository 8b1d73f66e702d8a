"""Of which family an unseen picture is: a hint, measured against chance and against always saying the same."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

from bmrl.data.prompts import prompt_tokens
from bmrl.errors import BMRLError
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, Generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from bmrl.data.row import Row
    from bmrl.evaluation.predictions import Predictions
    from bmrl.models import BMRL

__all__ = ["families_of_unseen"]

Level = Literal["manipulation", "architecture"]
LEVELS: tuple[Level, ...] = ("manipulation", "architecture")
UNNAMED = "unknown"
"""The name in the prompts of a family whose generator is not known."""


def families_of_unseen(predictions: Predictions, model: BMRL, training: Iterable[Row]) -> dict[str, Any]:
    """Return how often the family of an unseen picture is named rightly.

    Two ways are measured: by the classes, as an answer does it: the family whose classes have the largest sum of
    probabilities; and by the language encoder, if the model has one: the family whose prompts, those of generators that
    it was never trained on among them, have the embedding nearest to that of the picture (cosine).

    Args:
        predictions: of the tested images.
        model: which answered; its language encoder is asked.
        training: the training rows of the evaluated manifest, of which the most frequent family is taken.

    Returns:
        ``reason``: why nothing can be said, or None; and for each of ``manipulation`` and ``architecture`` a mapping or
        None: ``num_images``; ``by_classes`` and ``by_prompts``, shares in 0 .. 1 that are named rightly (``by_prompts``
        is None without a language encoder); ``chance`` and ``chance_by_prompts``, one over the number of families that
        each chooses from; and ``majority``, the share that is right when every picture is said to be of the family that
        has the most training images (None without training rows).
    """
    unseen = ~predictions.seen
    if not unseen.any():
        return {"reason": "no image of an unseen generator was tested", "manipulation": None, "architecture": None}
    chosen = predictions.select(unseen)
    rows = list(training)
    prompted = _by_prompts(model, chosen.embeddings)
    found: dict[str, Any] = {"reason": None}
    for level in LEVELS:
        true = [getattr(row, level) for row in chosen.rows]
        families = [getattr(generator, level) for generator in chosen.generators]
        common = Counter(getattr(row, level) for row in rows).most_common(1)
        found[level] = {
            "num_images": len(true),
            "by_classes": _share(_likeliest(families, chosen.probabilities), true),
            "by_prompts": None if prompted is None else _share([getattr(each, level) for each in prompted], true),
            "chance": 1 / len(set(families)),
            "chance_by_prompts": 1 / len({getattr(each, level) for each in _families()}),
            "majority": _share([common[0][0]] * len(true), true) if common else None,
        }
    return found


def _share(named: Sequence[str], true: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(named, true, strict=True)) / len(true)


def _likeliest(families: list[str], probabilities: Tensor) -> list[str]:
    """Return the family with the largest sum of probabilities for each image, the first of equals."""
    names = list(dict.fromkeys(families))
    members = torch.tensor([[family == name for name in names] for family in families], dtype=probabilities.dtype)
    return [names[place] for place in (probabilities @ members).argmax(dim=1).tolist()]


def _families() -> list[Generator]:
    """Return a nameless generator of every family; photographs have one."""
    pairs = product(MANIPULATIONS, ARCHITECTURES)
    return [
        Generator(name=UNNAMED, manipulation=manipulation, architecture=architecture)
        for manipulation, architecture in pairs
        if (manipulation == "none") == (architecture == "none")
    ]


def _by_prompts(model: BMRL, embeddings: Tensor) -> list[Generator] | None:
    """Return the family whose prompts are nearest to each embedding; None if the model can't be asked."""
    encoder = getattr(model, "language_encoder", None)
    if encoder is None:
        return None
    families = _families()
    modes = [(module, module.training) for module in encoder.modules()]
    try:
        tokens = prompt_tokens(families)
        place = next(encoder.parameters(), embeddings).device
        with torch.inference_mode():
            language = encoder.eval()(tokens.to(place)).float().cpu()
    except (BMRLError, RuntimeError, IndexError):  # of another vocabulary or length than CLIP's
        return None
    finally:
        for module, mode in modes:
            module.training = mode
    similar = F.normalize(embeddings.float(), dim=1) @ F.normalize(language, dim=1).mT
    return [families[place] for place in similar.argmax(dim=1).tolist()]
