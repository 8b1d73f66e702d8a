r"""The contrastive-center loss of Qi & Su, "Contrastive-center loss for deep neural networks", ICIP 2017.

The baseline (VCC, "vanilla" in arXiv:2504.14129) that the DFACC loss is compared with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bmrl._precision import compute_dtype, no_autocast
from bmrl._values import check_choice
from bmrl.losses._arguments import check_finite_positive
from bmrl.losses._batches import check_clusters
from bmrl.losses._distances import EXACT
from bmrl.losses._gather import GroupReference, check_gather, gather_for, gather_rows
from bmrl.losses._initial_centers import CenterInit, random_centers
from bmrl.losses._reductions import REDUCTIONS, Reduction, reduced

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ContrastiveCenterLoss", "contrastive_center_loss"]


def contrastive_center_loss(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    delta: float = 1.0,
    reduction: Reduction = "sum",
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""The contrastive-center loss of a labeled batch (Qi & Su, ICIP 2017).

    .. math::
        L = \frac{1}{2} \sum_u \frac{\lVert y_u - c_{k(u)} \rVert_2^2}
                                    {\sum_{j \ne k(u)} \lVert y_u - c_j \rVert_2^2 + \delta}

    Args:
        embeddings: ``(batch, dim)``, floating point, batch >= 1; one row per sample.
        labels: ``(batch,)`` int64 in 0..num_generators-1. Values, like those of the other tensors, are checked on
            the CPU only: a check would synchronize a GPU, whose indexing kernel asserts the range of labels anyway.
        centers: ``(num_generators, dim)``, floating point; row k is the center of generator k.
        delta: > 0, keeps the denominator from 0; in the squared unit of the embeddings.
        reduction: ``"sum"`` over the batch as published; ``"mean"``, which does not grow with the batch; or
            ``"none"``, the term of each row.
        gather: the batch is that of all processes, see :func:`dfacc_loss`.
        group: see :func:`dfacc_loss`.

    Returns:
        Scalar, or ``(batch,)`` for ``reduction="none"``: >= 0; float32 at least (half inputs are upcast).

    Raises:
        ShapeError: a wrong number of axes, an empty batch, or sizes that do not match.
        DTypeError: ``embeddings`` or ``centers`` is not floating point, ``labels`` is not int64, or another argument
            is of the wrong type.
        DeviceError: the tensors are on different devices.
        RangeError: a label out of range, a value that is not finite or whose square is not, ``delta`` not positive
            or not finite, or an unknown ``reduction``.
        ConfigError: ``group`` without ``gather``, or settings that differ between processes.

    Example:
        >>> import torch
        >>> centers = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> contrastive_center_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([0]), centers)
        tensor(0.2500)
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "contrastive_center_loss", "delta": delta, "reduction": reduction, "centers": centers}
        embeddings, labels = gather_rows({"embeddings": embeddings, "labels": labels}, group=group, same=same)
    check_clusters(embeddings, labels, centers)
    check_finite_positive("delta", delta)
    check_choice("reduction", reduction, REDUCTIONS)
    dtype = compute_dtype(embeddings, centers)
    with no_autocast(embeddings):
        # Distances from differences: neither cancellation nor a (batch, num_generators, dim) tensor.
        squares = torch.cdist(embeddings.to(dtype), centers.to(dtype), compute_mode=EXACT).square()
        own = squares.gather(1, labels[:, None]).squeeze(1)
        is_own = labels[:, None] == torch.arange(centers.shape[0], device=labels.device)
        # Masked, not `squares.sum(-1) - own`, which cancels when a sample is far from its own center.
        others = squares.masked_fill(is_own, 0.0).sum(-1)
        return reduced(0.5 * own / (others + float(delta)), reduction)


class ContrastiveCenterLoss(nn.Module):
    """Module form of :func:`contrastive_center_loss`, which owns the centers.

    Give ``centers`` its own learning rate (50 times the model's is a good start) and no weight decay.

    Args:
        num_generators: number of centers, >= 1.
        embed_dim: their width, >= 1.
        delta: see :func:`contrastive_center_loss`.
        reduction: see :func:`contrastive_center_loss`.
        gather: see :func:`dfacc_loss`. The centers of all processes are set to those of the first.
        group: see :func:`dfacc_loss`.
        init: where centers start: ``"sphere"``, random unit vectors, for L2-normalized embeddings; ``"simplex"``,
            random probability vectors, for probabilities.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.
        ConfigError: ``group`` without ``gather``.

    Source: Qi & Su, "Contrastive-center loss for deep neural networks", ICIP 2017.

    Example:
        >>> import torch
        >>> loss = ContrastiveCenterLoss(num_generators=7, embed_dim=16)
        >>> loss(torch.randn(4, 16), torch.tensor([0, 3, 3, 6])).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_generators: int,
        embed_dim: int,
        *,
        delta: float = 1.0,
        reduction: Reduction = "sum",
        gather: bool = False,
        group: ProcessGroup | None = None,
        init: CenterInit = "sphere",
    ) -> None:
        super().__init__()
        check_finite_positive("delta", delta)
        check_gather(gather, group)
        check_choice("reduction", reduction, REDUCTIONS)
        self.delta = delta
        self.reduction: Reduction = reduction
        self.gather = gather
        self._group = GroupReference(group)
        self.centers = nn.Parameter(random_centers(num_generators, embed_dim, init))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a labeled batch.

        Args:
            embeddings: ``(batch, embed_dim)``, floating point, batch >= 1.
            labels: ``(batch,)`` int64 in 0..num_generators-1.

        Returns:
            As :func:`contrastive_center_loss`: a scalar, >= 0, or ``(batch,)`` for ``reduction="none"``.

        Raises:
            ShapeError, DTypeError, DeviceError, RangeError, ConfigError: as :func:`contrastive_center_loss`.
        """
        if self.gather:
            embeddings, labels = gather_for(self, self._group, embeddings=embeddings, labels=labels)
        return contrastive_center_loss(embeddings, labels, self.centers, delta=self.delta, reduction=self.reduction)

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        num_generators, embed_dim = self.centers.shape
        return f"{num_generators}, {embed_dim}, delta={self.delta}, reduction={self.reduction!r}"
