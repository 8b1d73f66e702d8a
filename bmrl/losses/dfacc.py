r"""The deepfake attribution contrastive center (DFACC) loss: eq. 4-7 of arXiv:2504.14129.

Samples are pulled to the center of their generator. Samples of two *related* generators (centers closer than a
margin) are pulled together as well, until they are a margin apart; those of unrelated generators are pushed away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from bmrl._precision import compute_dtype, no_autocast
from bmrl.losses._arguments import check_count, check_weight
from bmrl.losses._batches import check_clusters
from bmrl.losses._dfacc_pairs import sum_over_pairs
from bmrl.losses._distances import EXACT, distances_to_own
from bmrl.losses._gather import GroupReference, check_gather, gather_for, gather_rows
from bmrl.losses._initial_centers import CenterInit, random_centers

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["DFACCLoss", "DFACCTerms", "dfacc_loss", "dfacc_terms"]


class DFACCTerms(NamedTuple):
    """The two terms of the DFACC loss, before they are weighted: scalars, float32 at least."""

    intra: Tensor
    """Mean distance of the samples to their own centers (eq. 5)."""
    inter: Tensor
    """Mean of L_uv over all pairs of samples, where pairs of one generator count 0 (eq. 6-7)."""


def dfacc_terms(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    margin: float = 0.7,
    chunk_rows: int | None = None,
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> DFACCTerms:
    r"""The two terms of :func:`dfacc_loss`, unweighted: eq. 5 and eq. 6-7 of arXiv:2504.14129.

    .. math::
        L_{intra} = \frac{1}{b} \sum_u \lVert y_u - c_{k(u)} \rVert_2, \qquad
        L_{inter} = \frac{2}{b (b - 1)} \sum_{u < v,\, k(u) \ne k(v)} L_{uv}

    Memory, precision and derivatives are those of :func:`dfacc_loss`.

    Args:
        embeddings: ``(batch, dim)``, floating point, batch >= 1; one row per sample.
        labels: ``(batch,)`` int64 in 0..num_generators-1, the generator of each row.
        centers: ``(num_generators, dim)``, floating point; row k is the center of generator k. They get gradients
            from ``intra`` only.
        margin: m >= 0, in the unit of the embeddings.
        chunk_rows: see :func:`dfacc_loss`.
        gather: see :func:`dfacc_loss`.
        group: see :func:`dfacc_loss`.

    Returns:
        :class:`DFACCTerms`, two scalars in the unit of the embeddings, float32 at least: ``intra`` >= 0, and ``inter``,
        negative where samples of unrelated generators lie apart and 0 for a batch of one.

    Raises:
        ShapeError, DTypeError, DeviceError, RangeError, ConfigError, RuntimeError: as :func:`dfacc_loss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> terms = dfacc_terms(embeddings, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        >>> round(terms.intra.item(), 4), round(terms.inter.item(), 4)
        (1.0, -1.4142)
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "dfacc_terms", "margin": margin, "chunk_rows": chunk_rows, "centers": centers}
        embeddings, labels = gather_rows({"embeddings": embeddings, "labels": labels}, group=group, same=same)
    check_clusters(embeddings, labels, centers)
    check_weight("margin", margin)
    margin = float(margin)
    check_count("chunk_rows", chunk_rows, optional=True)
    batch = embeddings.shape[0]
    dtype = compute_dtype(embeddings, centers)
    with no_autocast(embeddings):
        y, c = embeddings.to(dtype), centers.to(dtype)
        intra = distances_to_own(y, c, labels).mean()

        fixed = c.detach()
        related = torch.cdist(fixed, fixed, compute_mode=EXACT) < margin
        pairs = sum_over_pairs(y, labels, related, margin, chunk_rows)
        inter = pairs / max(batch * (batch - 1) / 2, 1)
    return DFACCTerms(intra, inter)


def dfacc_loss(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    margin: float = 0.7,
    inter_weight: float = 0.5,
    chunk_rows: int | None = None,
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> Tensor:
    r"""The DFACC loss of a labeled batch (eq. 4-7 of arXiv:2504.14129).

    .. math::
        L = \frac{1}{b} \sum_u \lVert y_u - c_{k(u)} \rVert_2
            + \lambda \frac{2}{b (b - 1)} \sum_{u < v,\, k(u) \ne k(v)} L_{uv}

    where :math:`L_{uv} = \max(\lVert y_u - y_v \rVert_2 - m, 0)` if
    :math:`\lVert c_{k(u)} - c_{k(v)} \rVert_2 < m`, and :math:`-\lVert y_u - y_v \rVert_2` otherwise.

    The second case has no lower bound, so give embeddings that have one: L2-normalized vectors or probabilities.
    Distances are computed from differences, exact for near-duplicates too. Between coincident points their first and
    second derivatives are 0. (Second derivatives need a PyTorch that knows those of ``torch.cdist``: 2.14 does, 2.11
    raises NotImplementedError.)

    Memory grows as ``batch ** 2`` up to ``chunk_rows`` rows (on CUDA the backward pass needs a buffer of
    ``batch ** 2 * dim``), and as ``batch`` above: the distances between two chunks of rows are then computed together
    with their gradient, and not kept. That form has no second derivative.

    On an NVIDIA GPU with Triton, unless ``chunk_rows`` is given or the dtype is float64, kernels compute the pairs of
    a batch of any size, in float32 and in memory that grows as ``batch``; results are reproducible to the bit. They
    have no second derivative either.

    Args:
        embeddings: ``(batch, dim)``, floating point, batch >= 1; one row per sample.
        labels: ``(batch,)`` int64 in 0..num_generators-1, the generator of each row. Values, like those of
            the other tensors, are checked on the CPU only: a check would synchronize a GPU, whose indexing kernel
            asserts the range of labels anyway.
        centers: ``(num_generators, dim)``, floating point; row k is the center of generator k. They learn from the
            first term only: the choice of the branch passes no gradient.
        margin: m >= 0, in the unit of the embeddings.
        inter_weight: lambda >= 0.
        chunk_rows: rows of a chunk, >= 1: distances are held for the pairs of two chunks; at least ``batch`` for the
            dense form. None takes the kernels where they run, elsewhere the dense form up to 1024 rows and chunks of
            512 rows above.
        gather: with ``torch.distributed`` initialized, the batch is that of all processes, which may differ in
            length: each returns the loss of the whole, and the *mean* of their gradients, which
            ``DistributedDataParallel`` and FSDP compute, is its gradient. ``centers`` must be equal in all processes;
            each gets their whole gradient. Memory and work of a process are those of the whole batch. Every argument
            must be the same in all processes except for the number of rows: if shapes, dtypes or settings differ, or
            an argument is None in some of them only, all processes raise one error. (``gather`` itself can't be
            compared: all must have it on.)
        group: the processes that gather; None means all. Needs ``gather=True``.

    Returns:
        Scalar; negative where pushing apart outweighs pulling together. With L2-normalized embeddings and centers
        it lies in ``-2 * inter_weight .. 2 + 2 * inter_weight``. float32 at least (half inputs are upcast). One
        sample has no pairs, so the second term is 0.

    Raises:
        ShapeError: a wrong number of axes, an empty batch, or sizes that do not match.
        DTypeError: ``embeddings`` or ``centers`` is not floating point, ``labels`` is not int64, or another argument
            is of the wrong type.
        DeviceError: the tensors are on different devices.
        RangeError: a label out of range, a value that is not finite or whose square is not, a ``margin`` or
            ``inter_weight`` that is negative or not finite, or ``chunk_rows`` below 1.
        ConfigError: ``group`` without ``gather``, or settings that differ between processes.
        RuntimeError: the gradient of a loss computed in chunks, or by the kernels, is differentiated again.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss = dfacc_loss(embeddings, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        >>> round(loss.item(), 4)
        0.2929
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "dfacc_loss", "margin": margin, "inter_weight": inter_weight, "chunk_rows": chunk_rows}
        same["centers"] = centers
        embeddings, labels = gather_rows({"embeddings": embeddings, "labels": labels}, group=group, same=same)
    check_weight("inter_weight", inter_weight)
    intra, inter = dfacc_terms(embeddings, labels, centers, margin=margin, chunk_rows=chunk_rows)
    return intra + float(inter_weight) * inter


class DFACCLoss(nn.Module):
    """Module form of :func:`dfacc_loss`, which owns the centers.

    Give ``centers`` its own learning rate (50 times the model's is a good start) and no weight decay.

    Args:
        num_generators: number of centers, >= 1.
        embed_dim: their width, >= 1.
        margin: see :func:`dfacc_loss`.
        inter_weight: see :func:`dfacc_loss`.
        chunk_rows: see :func:`dfacc_loss`.
        gather: see :func:`dfacc_loss`. The centers of all processes are set to those of the first.
        group: see :func:`dfacc_loss`.
        init: where centers start: ``"sphere"``, random unit vectors, for L2-normalized embeddings; ``"simplex"``,
            random probability vectors, for probabilities.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.
        ConfigError: ``group`` without ``gather``.

    Source: eq. 4-7 of arXiv:2504.14129.

    Example:
        >>> import torch
        >>> loss = DFACCLoss(num_generators=7, embed_dim=16)
        >>> embeddings = torch.nn.functional.normalize(torch.randn(4, 16))
        >>> loss(embeddings, torch.tensor([0, 3, 3, 6])).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_generators: int,
        embed_dim: int,
        *,
        margin: float = 0.7,
        inter_weight: float = 0.5,
        chunk_rows: int | None = None,
        gather: bool = False,
        group: ProcessGroup | None = None,
        init: CenterInit = "sphere",
    ) -> None:
        super().__init__()
        check_weight("margin", margin)
        check_weight("inter_weight", inter_weight)
        check_count("chunk_rows", chunk_rows, optional=True)
        check_gather(gather, group)
        self.margin = margin
        self.inter_weight = inter_weight
        self.chunk_rows = chunk_rows
        self.gather = gather
        self._group = GroupReference(group)
        self.centers = nn.Parameter(random_centers(num_generators, embed_dim, init))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a labeled batch.

        Args:
            embeddings: ``(batch, embed_dim)``, floating point, batch >= 1.
            labels: ``(batch,)`` int64 in 0..num_generators-1.

        Returns:
            Scalar, as :func:`dfacc_loss`.

        Raises:
            ShapeError, DTypeError, DeviceError, RangeError, ConfigError, RuntimeError: as :func:`dfacc_loss`.
        """
        if self.gather:
            embeddings, labels = gather_for(self, self._group, embeddings=embeddings, labels=labels)
        return dfacc_loss(
            embeddings,
            labels,
            self.centers,
            margin=self.margin,
            inter_weight=self.inter_weight,
            chunk_rows=self.chunk_rows,
        )

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        num_generators, embed_dim = self.centers.shape
        return f"{num_generators}, {embed_dim}, margin={self.margin}, inter_weight={self.inter_weight}"
