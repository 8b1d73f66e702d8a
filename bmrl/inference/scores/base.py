"""What every score is: a module that says how much an image looks like those of the seen generators."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmrl._checks import check_floating, check_shape
from bmrl.errors import RangeError, ShapeError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FittingData", "Score"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittingData:
    """What scores are fitted to: a model's answers about pictures of its classes.

    Args:
        logits: ``(n, x)`` floating point, divided by the temperature.
        embeddings: ``(n, d)`` floating point.
        labels: ``(n,)`` int64 in 0 .. x - 1.
        centers: ``(x, d)``, the centers that the DFACC loss learned; None: the mean embedding of each class.
        sources: where each picture comes from, n names; None: not known.
        held_out: the same of pictures of the same classes that the model was not trained on, by which scores are
            compared with each other; None: they are compared on what they are fitted to.

    Raises:
        ShapeError, DTypeError, RangeError: the tensors do not fit together.
    """

    logits: Tensor
    embeddings: Tensor
    labels: Tensor
    centers: Tensor | None = None
    sources: tuple[str, ...] | None = None
    held_out: FittingData | None = None

    def __post_init__(self) -> None:
        check_shape("logits", self.logits, "images generators")
        images, classes = self.logits.shape
        check_shape("embeddings", self.embeddings, "images dim", images=images)
        check_shape("labels", self.labels, "images", images=images)
        for name in ("logits", "embeddings"):
            check_floating(name, getattr(self, name))
            if not getattr(self, name).isfinite().all():
                raise RangeError(f"{name}: expected finite numbers, got NaN or infinity")
        if not images:
            raise ShapeError("logits: expected at least one image, got none")
        if self.labels.min() < 0 or self.labels.max() >= classes:
            got = f"{int(self.labels.min())} .. {int(self.labels.max())}"
            raise RangeError(f"labels: expected labels in 0 .. {classes - 1}, got {got}")
        if self.centers is not None:
            check_shape("centers", self.centers, "generators dim", generators=classes, dim=self.embeddings.shape[1])
        if self.sources is not None and len(self.sources) != images:
            raise ShapeError(f"sources: expected {images} names, got {len(self.sources)}")
        if self.held_out is not None:
            check_shape("held_out.logits", self.held_out.logits, "images generators", generators=classes)
            dim = self.embeddings.shape[1]
            check_shape("held_out.embeddings", self.held_out.embeddings, "images dim", dim=dim)

    @property
    def num_classes(self) -> int:
        """The number of classes x."""
        return self.logits.shape[1]

    def class_means(self) -> Tensor:
        """Return ``(x, d)`` float64, the mean embedding of each class.

        Raises:
            RangeError: a class has no picture.
        """
        absent = set(range(self.num_classes)) - set(self.labels.tolist())
        if absent:
            raise RangeError(f"labels: expected pictures of every class, got none of class {min(absent)}")
        embeddings = self.embeddings.double()
        sums = embeddings.new_zeros(self.num_classes, embeddings.shape[1]).index_add_(0, self.labels, embeddings)
        return sums / self.labels.bincount(minlength=self.num_classes)[:, None]

    def without(self, classes: Tensor) -> FittingData:
        """Return the data of all classes but ``classes`` ``(m,)`` int64: without their pictures, logits and centers."""
        columns = torch.ones(self.num_classes, dtype=torch.bool)
        columns[classes] = False
        rows = columns[self.labels]
        places = columns.cumsum(0) - 1
        return FittingData(
            logits=self.logits[rows][:, columns],
            embeddings=self.embeddings[rows],
            labels=places[self.labels[rows]],
            centers=None if self.centers is None else self.centers[columns],
        )


class Score(nn.Module, abc.ABC):
    """How much an image looks like those of the seen generators: the higher, the more.

    What a score learned lies in buffers. It holds no other state, so that ``state_dict()`` is all there is to keep, and
    it is part of every exported graph: no step may depend on the values.
    """

    @classmethod
    @abc.abstractmethod
    def fit(cls, data: FittingData) -> Self:
        """Return the score fitted to a model's answers about training pictures."""

    @classmethod
    @abc.abstractmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Return the score whose ``state_dict()`` this was."""

    @abc.abstractmethod
    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Score a batch.

        Args:
            logits: ``(batch, x)`` float32, divided by the temperature.
            embedding: ``(batch, d)`` float32.

        Returns:
            ``(batch,)`` float32.
        """


class BufferScore(Score):
    """A score whose state is some tensors of fixed names."""

    NAMES: tuple[str, ...] = ()

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name in self.NAMES:
            self.register_buffer(name, tensors[name].detach().float().contiguous())

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Return the score whose ``state_dict()`` this was.

        Raises:
            RangeError: it was that of another score.
        """
        if state.keys() != set(cls.NAMES):
            raise RangeError(f"state: expected {', '.join(cls.NAMES) or 'none'}, got {', '.join(state) or 'none'}")
        return cls(**state)
