"""A weighted sum of scores, chosen by leaving generators and sources out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmrl.errors import RangeError
from bmrl.inference.scores.base import FittingData, Score
from bmrl.inference.scores.kinds import SINGLE_SCORES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

__all__ = ["Combined", "choose_combination"]

STEPS = 6
"""How often a score is added to the combination, the same one again included."""

LEAST_GAIN = 1e-3
"""Mean AUROC that one more score must bring."""


class Combined(Score):
    """A weighted sum of single scores, each in units of its deviation over the pictures it was fitted to.

    Args:
        parts: by their name in :data:`~bmrl.inference.scores.SCORES`: the fitted score, its weight >= 0, and the mean
            and the deviation of the score over seen pictures, which is > 0.

    Source: the choice is the greedy selection of Caruana et al. (2004), by AUROC.
    """

    def __init__(self, parts: Mapping[str, tuple[Score, float, float, float]]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: _Part(*parts[name]) for name in sorted(parts)})

    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Choose the weights by :func:`choose_combination`, and fit what has one to all pictures."""
        return cls.with_weights(data, choose_combination(data))

    @classmethod
    def with_weights(cls, data: FittingData, weights: Mapping[str, float]) -> Self:
        """Return the scores of these weights fitted to all pictures, none of them chosen."""
        parts = {}
        for name, weight in weights.items():
            score = SINGLE_SCORES[name].fit(data)
            values = _scored(score, data.held_out or data)
            parts[name] = score, weight, float(values.mean()), _deviation(values)
        return cls(parts)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Return the score whose ``state_dict()`` this was.

        Raises:
            RangeError: it was that of another score.
        """
        owned: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            place, _, rest = key.partition(".")
            name, _, buffer = rest.partition(".")
            if place != "parts" or name not in SINGLE_SCORES or not buffer:
                raise RangeError(f"state: expected parts.NAME of {', '.join(SINGLE_SCORES)}, got {key!r}")
            owned.setdefault(name, {})[buffer] = tensor
        parts = {}
        for name, tensors in owned.items():
            if missing := {"weight", "mean", "deviation"} - tensors.keys():
                raise RangeError(f"state: expected parts.{name}.{min(missing)}, got none")
            numbers = [float(tensors.pop(buffer)) for buffer in ("weight", "mean", "deviation")]
            inner = {buffer.removeprefix("score."): tensor for buffer, tensor in tensors.items()}
            parts[name] = SINGLE_SCORES[name].from_state(inner), *numbers
        if not parts:
            raise RangeError("state: expected at least one part, got none")
        return cls(parts)  # type: ignore[arg-type]

    def weights(self) -> dict[str, float]:
        """Return the weights by the scores' names."""
        return {name: float(part.weight) for name, part in self.parts.items()}  # type: ignore[arg-type]

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``; over seen pictures each part has the mean 0."""
        return torch.stack([part(logits, embedding) for part in self.parts.values()]).sum(dim=0)


class _Part(nn.Module):
    """A score, standardized and weighted."""

    weight: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, score: Score, weight: float, mean: float, deviation: float) -> None:
        super().__init__()
        self.score = score
        for name, value in (("weight", weight), ("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(float(value)))

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        values: Tensor = self.score(logits, embedding)
        return self.weight * (values - self.mean) / self.deviation


def choose_combination(data: FittingData) -> dict[str, float]:
    """Choose which scores tell pictures of generators that were left out from those of the others.

    Each class, and the classes of each source together, is left out once: its logit is removed, the scores are fitted
    to the other classes, and the AUROC says how well they tell its pictures from those of the others. Where sources are
    given, only pictures of its own sources are compared with it, and classes that share no source with others are not
    left out: a score that only tells sources apart would win there, and is of no use between pictures of one. If no
    classes share a source, sources cannot be told from generators, and all pictures are compared. Then scores are added
    one by one, standardized and with equal weights, as long as the mean of the AUROCs grows.

    The network itself has seen the left-out class in its training: what comes out is the best of the scores, and no
    estimate of how well an unseen generator will be recognized.

    Args:
        data: what the scores are fitted to; ``data.held_out``, if there is one, is what they are compared on.

    Returns:
        Weights > 0 that sum to 1, by the scores' names; ``{"max_probability": 1.0}`` if no class can be left out,
        because there are fewer than three.

    Raises:
        ShapeError, DTypeError, RangeError: as :class:`FittingData`.
    """
    trials = list(_trials(data))
    if not trials:
        return {"max_probability": 1.0}
    chosen: Counter[str] = Counter()
    best = 0.0
    for _ in range(STEPS):
        gains = {name: _mean_auroc(trials, chosen + Counter([name])) for name in SINGLE_SCORES}
        name = max(gains, key=gains.__getitem__)
        if gains[name] < best + LEAST_GAIN:
            break
        chosen[name] += 1
        best = gains[name]
    total = chosen.total()
    return {name: count / total for name, count in sorted(chosen.items())}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Standardized scores of pictures with one class, or those of one source, left out."""

    seen: dict[str, Tensor]
    unseen: dict[str, Tensor]


def _trials(data: FittingData) -> Iterator[_Trial]:
    tested = data.held_out or data
    for left_out, unseen, compared in _comparisons(tested):
        known = data.without(left_out)
        trial = _Trial({}, {})
        for name, kind in SINGLE_SCORES.items():
            values = _scored(kind.fit(known), tested, without=left_out)
            reference = values[~unseen]
            standardized = (values - reference.mean()) / _deviation(reference)
            trial.seen[name], trial.unseen[name] = standardized[compared], standardized[unseen]
        yield trial


def _comparisons(tested: FittingData) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return which classes are left out together, and ``(n,)`` bool each: their pictures, and those compared with them.

    Within sources where that can be; only if no classes share a source are they compared across sources.
    """
    inside, across = [], []
    groups = {(label,) for label in range(tested.num_classes)} | set(_classes_by_source(tested))
    for group in sorted(groups):
        if tested.num_classes - len(group) < 2:
            continue
        left_out = torch.tensor(group)
        unseen = torch.isin(tested.labels, left_out)
        if not unseen.any() or unseen.all():
            continue
        compared = ~unseen & _of_same_sources(tested, unseen)
        if compared.any():
            inside.append((left_out, unseen, compared))
        else:
            across.append((left_out, unseen, ~unseen))
    return inside or across


def _classes_by_source(data: FittingData) -> Iterator[tuple[int, ...]]:
    """Yield the classes whose pictures all come from one source, for each source that has some."""
    if data.sources is None:
        return
    homes: dict[int, set[str]] = {}
    for label, source in zip(data.labels.tolist(), data.sources, strict=True):
        homes.setdefault(label, set()).add(source)
    for source in sorted(set(data.sources)):
        alone = tuple(sorted(label for label, places in homes.items() if places == {source}))
        if alone:
            yield alone


def _of_same_sources(data: FittingData, images: Tensor) -> Tensor:
    """Return ``(n,)`` bool: whether an image comes from a source of one of ``images``."""
    if data.sources is None:
        return torch.ones_like(images)
    places = {source for source, chosen in zip(data.sources, images.tolist(), strict=True) if chosen}
    return torch.tensor([source in places for source in data.sources])


def _scored(score: Score, data: FittingData, without: Tensor | None = None) -> Tensor:
    logits = data.logits
    if without is not None:
        kept = torch.ones(data.num_classes, dtype=torch.bool)
        kept[without] = False
        logits = logits[:, kept]
    with torch.no_grad():
        return score(logits.float(), data.embeddings.float()).double()


def _deviation(values: Tensor) -> float:
    deviation = float(values.std(unbiased=False))
    return deviation if deviation > 0 else 1.0  # a constant score says nothing, and is left as it is


def _mean_auroc(trials: list[_Trial], weights: Counter[str]) -> float:
    values = []
    for trial in trials:
        seen, unseen = (
            torch.stack([scores[name] * weight for name, weight in weights.items()]).sum(dim=0)
            for scores in (trial.seen, trial.unseen)
        )
        values.append(_auroc(seen, unseen))
    return sum(values) / len(values)


def _auroc(seen: Tensor, unseen: Tensor) -> float:
    """Return the share of pairs in which the seen image has the higher score; ties count half."""
    ordered = unseen.sort().values
    below = torch.searchsorted(ordered, seen)
    reached = torch.searchsorted(ordered, seen, right=True)
    return float((below + reached).double().mean()) / (2 * len(unseen))
