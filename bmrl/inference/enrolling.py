"""Enrolling a generator: a model learns one more name from a few pictures, and nothing else changes in it."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_integer
from bmrl._results import Result
from bmrl.data.alterations import ALTERATIONS, read_versions
from bmrl.errors import BMRLError, ConfigError, DataError
from bmrl.generators import Generator
from bmrl.inference.calibrating import AS_IT_IS
from bmrl.inference.decider import Decider, decider_of, limits_of
from bmrl.inference.reading import name_images, read_batches
from bmrl.inference.running import infer, resolve_model
from bmrl.inference.scores import SCORES, Combined, FittingData
from bmrl.models import BMRL, CalibrationAnswers, FittedDecision, References
from bmrl.models.parts import HeadConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from bmrl.generators import Architecture, Manipulation
    from bmrl.inference.scores import Score

__all__ = ["LEAST_PICTURES", "Enrollment", "enroll"]

LEAST_PICTURES = 5
"""Pictures of a generator that it takes."""

FOLDS = 5
"""Parts of the pictures, each answered by what was learned from the others."""

PENALTY = 1e-2
"""Of the squared length of the new class's weights, as a share of that of the other rows, added to a mean log loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrollment(Result):
    """What became of the pictures of an enrolled generator, each answered by what was learned from the others.

    Attributes:
        generator: its name.
        pictures: how many there were.
        named: share of them that got the name.
        named_otherwise: share that got the name of another generator.
        uncertain: share that got no name because it would not have been sure enough.
        unseen: share that were called unseen.
        taken: of the calibration pictures of the other generators, as they are, the share that gets the new name.
        skipped: pictures that could not be read, with the reason.
    """

    generator: str
    pictures: int
    named: float
    named_otherwise: float
    uncertain: float
    unseen: float
    taken: float
    skipped: tuple[tuple[str, str], ...] = ()


def enroll(
    model: BMRL | str | os.PathLike[str],
    name: str,
    pictures: Iterable[Any] | str | os.PathLike[str],
    *,
    manipulation: Manipulation = "EFS",
    architecture: Architecture = "unknown",
    batch_size: int = 32,
    device: str | torch.device = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[BMRL, Enrollment]:
    """Return a model that knows one more generator, from 5 pictures on; its other weights stay as they are.

    The new class is a row of the head: a logistic regression of the embeddings of the pictures, as they are and altered
    as the calibration altered them, against those of the training pictures that the model keeps. The logits of the
    other classes do not change. The decision is fitted again to all classes, with the same score (a combination keeps
    its weights), temperature and guarantees: pictures of the new generator join the calibration, each answered by what
    was learned from the others.

    Args:
        model: a model with a fitted decision (:func:`bmrl.inference.calibrate`) and the head of kind ``linear``, or its
            folder. It is not changed; :func:`bmrl.models.save_model` keeps the result.
        name: of the generator: none of the model's classes.
        pictures: of it, 5 or more: each a path, the bytes of a file, a binary file or a ``PIL.Image``. Those that can't
            be read are left out. More than about 50 are better used in a training.
        manipulation: of :data:`bmrl.generators.MANIPULATIONS`; ``"none"`` for photographs, of a camera for example.
        architecture: of :data:`bmrl.generators.ARCHITECTURES`.
        batch_size: pictures per step, >= 1.
        device: where the model runs, as of :func:`~bmrl.inference.calibrate`.
        progress: called after each step with the number of pictures done and of all.

    Returns:
        The new model, in evaluation mode on the CPU, and what became of the pictures.

    Raises:
        ConfigError: the model has no fitted decision, was calibrated by an earlier version, or has a head of one's
            own; or the name is a class of it already, or none that a generator may have.
        DataError: fewer than 5 pictures can be read.
        RangeError, DTypeError: an argument is out of range or of the wrong type.
        MissingFileError, ModelFolderError, DeviceError: as of :class:`~bmrl.inference.Attributor`.
    """
    check_integer("batch_size", batch_size, least=1)
    network = resolve_model(model, device)
    fitted = _check_model(network)
    generator = Generator(name=name, manipulation=manipulation, architecture=architecture)
    if generator.name in {known.name for known in network.config.generators}:
        raise ConfigError(f"name: expected none of the model's classes, got {generator.name!r}")
    embeddings, skipped = _embeddings(
        network, list(name_images(pictures)), fitted.answers.versions, batch_size, progress
    )
    learner = _Learner(network, fitted)
    count = embeddings.shape[1]
    answers = learner.cross_fitted(embeddings)
    row, decider = learner.learned(embeddings)
    enrolled = _extended(network, generator, row)
    enrolled.decision = learner.decision(embeddings, row, decider, answers)
    limits = limits_of(enrolled)
    verdicts = limits.verdicts(answers.scores[0], answers.probabilities[0])
    outcomes = [
        verdict if verdict != "seen" else ("named" if right else "named_otherwise")
        for verdict, right in zip(verdicts, answers.right[0].tolist(), strict=True)
    ]
    shares = {kind: outcomes.count(kind) / count for kind in ("named", "named_otherwise", "uncertain", "unseen")}
    taken = learner.taken(row, decider, limits.verdicts)
    found = Enrollment(generator=generator.name, pictures=count, **shares, taken=taken, skipped=skipped)
    return enrolled, found


def _check_model(model: BMRL) -> FittedDecision:
    """Return a model's fitted decision, once it is known that a class can be added.

    Raises:
        ConfigError: it can't.
    """
    if not isinstance(model.config.head, HeadConfig):
        raise ConfigError(f"model: expected one with the head of kind 'linear', got {model.config.head.kind!r}")
    if model.config.decision.score is None or model.decision is None:
        raise ConfigError("model: expected one whose decision is fitted, got one without; fit it with bmrl calibrate")
    decider_of(model)
    if model.decision.references is None:
        raise ConfigError(
            "model: expected one that keeps embeddings of its training pictures, got one that was calibrated by an "
            "earlier version; fit its decision again with bmrl calibrate"
        )
    return model.decision


def _embeddings(
    model: BMRL,
    pictures: list[tuple[Any, str]],
    versions: tuple[str, ...],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Tensor, tuple[tuple[str, str], ...]]:
    """Return ``(v, n, d)`` float32 on the CPU of the pictures that can be read, and what could not.

    Raises:
        DataError: too few can be read.
    """
    altered = [None if version == AS_IT_IS else ALTERATIONS[version] for version in versions]

    def read(named: tuple[Any, str], size: int) -> Tensor:
        return read_versions(named[0], size, altered, name=named[1])

    if len(pictures) < LEAST_PICTURES:
        raise DataError(f"pictures: expected at least {LEAST_PICTURES}, got {len(pictures)}")
    parts, skipped, done = [], [], 0
    for batch in read_batches(pictures, model.config.image_size, batch_size, read=read):
        for (_, name), item in zip(batch.sources, batch.items, strict=True):
            if isinstance(item, BMRLError):
                skipped.append((name, str(item)))
        if batch.images is not None:
            outputs = [infer(model, images).embedding.float().cpu() for images in batch.images.unbind(1)]
            parts.append(torch.stack(outputs))
        done += len(batch.items)
        if progress is not None:
            progress(done, len(pictures))
    readable = len(pictures) - len(skipped)
    if readable < LEAST_PICTURES:
        raise DataError(
            f"pictures: expected at least {LEAST_PICTURES} that can be read, got {readable}; first: {skipped[0][1]}"
        )
    return torch.cat(parts, dim=1), tuple(skipped)


@dataclass(frozen=True, slots=True)
class _Row:
    """The new class's row of the head."""

    weight: Tensor
    """``(d,)`` float32."""
    bias: float


class _Learner:
    """Learns a row of the head, and a decision, from what a model keeps and from embeddings of one more class."""

    def __init__(self, model: BMRL, fitted: FittedDecision) -> None:
        assert fitted.references is not None
        self.fitted = fitted
        self.known = fitted.references
        self.head = copy.deepcopy(model.head).cpu().float().eval()
        self.num_classes = len(model.config.generators)
        self.score: Score = Decider.of(fitted).score
        self.logits = self._old(self.known.embeddings)

    @torch.no_grad()
    def _old(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.head(embeddings)
        return logits

    @torch.no_grad()
    def _features(self, embeddings: Tensor) -> Tensor:
        """Return what the head's last layer reads."""
        features: Tensor = self.head[:-1](embeddings)  # type: ignore[index]
        return features

    def _logits(self, embeddings: Tensor, row: _Row) -> Tensor:
        """Return the logits of all classes and the new one, divided by the temperature."""
        new = self._features(embeddings) @ row.weight + row.bias
        return torch.cat((self._old(embeddings), new[..., None]), dim=-1) / self.fitted.temperature

    def learned(self, embeddings: Tensor) -> tuple[_Row, Decider]:
        """Return the row of the class of ``embeddings`` ``(v, n, d)``, and what decides with it.

        It learns from all versions, as the known pictures are in one or another of them.
        """
        embeddings = embeddings.flatten(0, 1)
        row = _fit_row(
            self._features(embeddings),
            self._old(embeddings),
            self._features(self.known.embeddings),
            self.logits,
            self.known.labels,
            float(self.head[-1].weight.detach().square().sum(dim=1).mean()),  # type: ignore[index]
        )
        everything = torch.cat((self.known.embeddings, embeddings))
        new = torch.full((len(embeddings),), self.num_classes)
        versions = len(self.known.held_out)
        held_out = self.known.held_out.flatten(0, 1)
        data = FittingData(
            logits=self._logits(everything, row),
            embeddings=everything,
            labels=torch.cat((self.known.labels, new)),
            centers=self._centers(embeddings),
            held_out=FittingData(
                logits=self._logits(held_out, row),
                embeddings=held_out,
                labels=self.known.held_out_labels.repeat(versions),
            ),
        )
        if isinstance(self.score, Combined):
            score: Score = Combined.with_weights(data, self.score.weights())
        else:
            score = SCORES[self.fitted.score].fit(data)
        return row, Decider(score, self.fitted.temperature)

    def _centers(self, embeddings: Tensor) -> Tensor | None:
        """Return the centers that the losses learned, with the mean of the new class; None where the score has none."""
        for name, tensor in self.fitted.state.items():
            if name.endswith("centers"):
                return torch.cat((tensor.float(), embeddings.mean(dim=0, keepdim=True)))
        return None

    @torch.no_grad()
    def _answers(self, embeddings: Tensor, labels: Tensor, row: _Row, decider: Decider) -> CalibrationAnswers:
        """Return what is answered about ``(v, n, d)``."""
        undivided = self._logits(embeddings, row) * self.fitted.temperature
        decided = [decider(*version) for version in zip(undivided, embeddings, strict=True)]
        largest = torch.stack([probabilities for probabilities, _ in decided]).max(dim=2)
        return CalibrationAnswers(
            versions=self.fitted.answers.versions,
            scores=torch.stack([scores for _, scores in decided]),
            probabilities=largest.values,
            right=largest.indices == labels,
        )

    def cross_fitted(self, embeddings: Tensor) -> CalibrationAnswers:
        """Return what is answered about each picture of ``(v, n, d)`` by what was learned from the others."""
        count = embeddings.shape[1]
        fold = torch.arange(count) % min(FOLDS, count)
        places, parts = [], []
        for number in fold.unique():
            own = (fold == number).nonzero()[:, 0]
            row, decider = self.learned(embeddings[:, fold != number])
            new = torch.full((len(own),), self.num_classes)
            places.append(own)
            parts.append(self._answers(embeddings[:, own], new, row, decider))
        return _joined(parts, torch.cat(places).argsort())

    def decision(self, embeddings: Tensor, row: _Row, decider: Decider, answers: CalibrationAnswers) -> FittedDecision:
        """Return the decision about all classes.

        Args:
            embeddings: ``(v, n, d)`` of the new one.
            row: of the head.
            decider: what decides.
            answers: about the new one.
        """
        known, earlier = self.known, self.known.num_enrolled
        parts = [self._answers(known.held_out, known.held_out_labels, row, decider)]
        if earlier:  # they were answered by what was learned from others, which is kept
            before = self.fitted.answers
            parts.append(
                dataclasses.replace(
                    before,
                    scores=before.scores[:, -earlier:],
                    probabilities=before.probabilities[:, -earlier:],
                    right=before.right[:, -earlier:],
                )
            )
        new = torch.full((embeddings.shape[0] * embeddings.shape[1],), self.num_classes)
        return FittedDecision(
            score=self.fitted.score,
            state=decider.score.state_dict(),
            temperature=self.fitted.temperature,
            answers=_joined([*parts, answers]),
            references=References(
                embeddings=torch.cat((known.embeddings, embeddings.flatten(0, 1))),
                labels=torch.cat((known.labels, new)),
                held_out=known.held_out,
                held_out_labels=known.held_out_labels,
                num_enrolled=earlier + embeddings.shape[1],
            ),
            collections=self.fitted.collections,
        )

    @torch.no_grad()
    def taken(self, row: _Row, decider: Decider, verdicts: Callable[[Tensor, Tensor], list[Any]]) -> float:
        """Return the share of calibration pictures of the other classes that get the new name."""
        held_out = self.known.held_out[0]
        probabilities, scores = decider(self._logits(held_out, row) * self.fitted.temperature, held_out)
        best = probabilities.max(dim=1)
        said = verdicts(scores, best.values)
        new = (best.indices == self.num_classes).tolist()
        return sum(verdict == "seen" and own for verdict, own in zip(said, new, strict=True)) / len(new)


def _joined(parts: list[CalibrationAnswers], order: Tensor | None = None) -> CalibrationAnswers:
    def joined(name: str) -> Tensor:
        tensor = torch.cat([getattr(part, name) for part in parts], dim=1)
        return tensor if order is None else tensor[:, order]

    return CalibrationAnswers(
        versions=parts[0].versions, **{name: joined(name) for name in ("scores", "probabilities", "right")}
    )


def _fit_row(
    new: Tensor, new_logits: Tensor, old: Tensor, old_logits: Tensor, labels: Tensor, squared_length: float
) -> _Row:
    """Return the row that tells one class from those of a head, whose rows stay.

    With the other rows fixed, the softmax is a logistic regression: the log odds of the new class are its logit less
    the log-sum-exp of the others. Each class counts as much as any other; a penalty on the squared weights keeps few
    pictures from deciding too much. It is relative to the other rows: where these are sure, the new one may be too.

    Args:
        new: ``(n, d)``, what the head's layer reads of the new class's pictures.
        new_logits: ``(n, x)``, of the other classes.
        old: ``(m, d)``, the same of pictures of the other classes.
        old_logits: ``(m, x)``.
        labels: ``(m,)`` int64.
        squared_length: mean squared length of the other rows.
    """
    features = torch.cat((new, old)).double()
    offsets = torch.cat((new_logits, old_logits)).double().logsumexp(dim=1)
    target = torch.cat((torch.ones(len(new)), torch.zeros(len(old)))).double()
    counts = labels.bincount().double()
    weights = torch.cat((torch.full((len(new),), 1 / len(new)).double(), 1 / counts[labels])) / (len(counts) + 1)
    found = torch.zeros(features.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [found], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=1e-12
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            odds = features @ found[:-1] + found[-1] - offsets
            losses = F.binary_cross_entropy_with_logits(odds, target, reduction="none")
            value = (weights * losses).sum() + PENALTY * found[:-1].square().sum() / max(squared_length, 1e-12)
            value.backward()
        return value

    optimizer.step(loss)
    result = found.detach().float()
    return _Row(result[:-1], float(result[-1]))


def _extended(model: BMRL, generator: Generator, row: _Row) -> BMRL:
    """Return a copy of a model with one more class, on the CPU in evaluation mode."""
    enrolled = copy.deepcopy(model).cpu().eval()
    layer = enrolled.head[-1]  # type: ignore[index]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        weight = torch.cat((layer.weight, row.weight[None].to(layer.weight.dtype)))
        bias = torch.cat((layer.bias, layer.bias.new_tensor([row.bias])))
    layer.weight, layer.bias, layer.out_features = nn.Parameter(weight), nn.Parameter(bias), len(weight)
    generators = (*enrolled.config.generators, generator)
    enrolled.config = dataclasses.replace(enrolled.config, generators=generators)
    return enrolled
