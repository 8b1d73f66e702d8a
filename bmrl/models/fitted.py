"""What was fitted after training for deciding about images: plain tensors, saved with the weights.

What is done with them is in :mod:`bmrl.inference`: this room only keeps them with the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bmrl._checks import check_dtype, check_floating, check_integer, check_positive, check_shape
from bmrl._values import described
from bmrl.errors import DTypeError, RangeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CalibrationAnswers", "FittedDecision", "References"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CalibrationAnswers:
    """What a model answered about n pictures of its classes that it was not trained on, each in v versions.

    A version is the picture as it is, or altered in a way that pictures on the web are. Which limits follow for a
    guarantee that is asked for is computed from these numbers, whenever it is asked for.

    Attributes:
        versions: the v names, such as ``("as it is", "jpeg75")``.
        scores: ``(v, n)`` float32, higher is more like a seen picture.
        probabilities: ``(v, n)`` float32 in 0 .. 1, of the most probable class.
        right: ``(v, n)`` bool, whether that is the picture's class.

    Raises:
        ShapeError, DTypeError, RangeError: the tensors do not fit, or hold values that are not finite.
    """

    versions: tuple[str, ...]
    scores: Tensor
    probabilities: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        for name in ("scores", "probabilities", "right"):
            check_shape(name, getattr(self, name), "versions pictures", versions=len(self.versions))
        check_floating("scores", self.scores)
        check_floating("probabilities", self.probabilities)
        check_dtype("right", self.right, torch.bool)
        if not self.scores.numel():
            raise ShapeError(f"scores: expected at least one picture, got {tuple(self.scores.shape)}")
        for name in ("probabilities", "right"):
            if getattr(self, name).shape != self.scores.shape:
                raise ShapeError(
                    f"{name}: expected the shape of scores {tuple(self.scores.shape)}, "
                    f"got {tuple(getattr(self, name).shape)}"
                )
        if not self.scores.isfinite().all():
            raise RangeError("scores: expected finite numbers, got NaN or infinity")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise RangeError("probabilities: expected numbers in 0 .. 1, got others")

    @property
    def num_pictures(self) -> int:
        """How many pictures n there are, each in every version."""
        return self.scores.shape[1]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class References:
    """Embeddings of pictures, by which a decision can be fitted again when a generator is enrolled.

    Attributes:
        embeddings: ``(n, d)`` floating point, of training pictures, each in one of the versions of the answers.
        labels: ``(n,)`` int64, their classes.
        held_out: ``(v, m, d)`` floating point, of calibration pictures in the versions of the answers.
        held_out_labels: ``(m,)`` int64.
        num_enrolled: the answers end with those about this many pictures of generators that were enrolled; they are
            not among ``held_out``.

    Raises:
        ShapeError, DTypeError, RangeError: the tensors do not fit, or hold values that are not finite.
    """

    embeddings: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    num_enrolled: int = 0

    def __post_init__(self) -> None:
        check_shape("embeddings", self.embeddings, "pictures dim")
        pictures, dim = self.embeddings.shape
        check_shape("labels", self.labels, "pictures", pictures=pictures)
        check_shape("held_out", self.held_out, "versions pictures dim", dim=dim)
        check_shape("held_out_labels", self.held_out_labels, "pictures", pictures=self.held_out.shape[1])
        check_integer("num_enrolled", self.num_enrolled, least=0)
        for name in ("embeddings", "held_out"):
            check_floating(name, getattr(self, name))
            if not getattr(self, name).isfinite().all():
                raise RangeError(f"{name}: expected finite numbers, got NaN or infinity")
        for name in ("labels", "held_out_labels"):
            check_dtype(name, getattr(self, name), torch.int64)
            if (getattr(self, name) < 0).any():
                raise RangeError(f"{name}: expected labels >= 0, got {int(getattr(self, name).min())}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedDecision:
    """How a model's images are scored, and what it answered about pictures that it was not trained on.

    :func:`bmrl.inference.calibrate` makes it; as ``model.decision`` it is saved, exported and served with the model.

    Attributes:
        score: the name of a score of :data:`bmrl.inference.scores.SCORES`.
        state: what the score learned: floating-point tensors by name, as its ``state_dict()`` gives them.
        temperature: > 0; logits are divided by it before the softmax.
        answers: about the calibration pictures.
        references: what a generator can be enrolled with; None: none can.
        collections: by the name of a class, the collections that the training pictures come from, as far as the
            manifest said; see :attr:`bmrl.data.Row.collection`.

    Raises:
        DTypeError, RangeError: a value of another type, out of range, or not finite.
    """

    score: str
    state: Mapping[str, Tensor]
    temperature: float
    answers: CalibrationAnswers
    references: References | None = None
    collections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.score, str):
            raise DTypeError(f"score: expected a name, got {described(self.score)}")
        check_positive("temperature", self.temperature)
        if not isinstance(self.answers, CalibrationAnswers):
            raise DTypeError(f"answers: expected CalibrationAnswers, got {described(self.answers)}")
        if self.references is not None and not isinstance(self.references, References):
            raise DTypeError(f"references: expected References, got {described(self.references)}")
        for name, known in self.collections.items():
            if not isinstance(known, tuple) or not all(isinstance(each, str) for each in (name, *known)):
                raise DTypeError(f"collections: expected tuples of names by name, got {described(known)}")
        for name, tensor in self.state.items():
            if not isinstance(tensor, Tensor):
                raise DTypeError(f"state.{name}: expected a torch.Tensor, got {described(tensor)}")
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise RangeError(f"state.{name}: expected finite values, got NaN or infinity")
