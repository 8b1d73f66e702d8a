r"""The deepfake attribution contrastive center (DFACC) loss: eq. 4-7 of arXiv:2504.14129.

Samples are pulled to the center of their generator. Samples of two *related* generators (centers closer than a
margin) are pulled together as well, until they are a margin apart; those of unrelated generators are pushed away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._kernels import runs_kernels
from bmrl.losses._arguments import check_count, check_weight
from bmrl.losses._batches import check_clusters
from bmrl.losses._chunks import check_no_vmap, chunks, only_once, rows_a_chunk
from bmrl.losses._distances import EXACT, distances_between, distances_to_own, distances_within
from bmrl.losses._gather import GroupReference, check_gather, gather_for, gather_rows
from bmrl.losses._initial_centers import CenterInit, random_centers
from bmrl.losses._precision import compute_dtype, no_autocast

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["DFACCLoss", "DFACCTerms", "dfacc_loss", "dfacc_terms"]

_LARGE_CHUNK = 512
"""Rows of a chunk where the user chose nothing: its square of pairs takes 1 MiB in float32, and as many scratch."""


class DFACCTerms(NamedTuple):
    """The two terms of the DFACC loss, before they are weighted: scalars, float32 at least."""

    intra: Tensor
    inter: Tensor


def dfacc_terms(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    margin: float = 0.7,
    chunk_size: int | None = None,
    gather: bool = False,
    group: ProcessGroup | None = None,
) -> DFACCTerms:
    r"""The intra-generator and the inter-generator term of :func:`dfacc_loss`, apart.

    Takes the arguments of :func:`dfacc_loss`, without the weight that joins the terms, and raises the same errors.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> terms = dfacc_terms(embeddings, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        >>> [round(term.item(), 4) for term in terms]
        [1.0, -1.4142]
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "dfacc_terms", "margin": margin, "chunk_size": chunk_size, "centers": centers}
        embeddings, labels = gather_rows({"embeddings": embeddings, "labels": labels}, group=group, same=same)
    check_clusters(embeddings, labels, centers)
    check_weight("margin", margin)
    margin = float(margin)
    batch, chosen = embeddings.shape[0], chunk_size
    chunk_size = rows_a_chunk(chunk_size, batch, of_large=_LARGE_CHUNK)
    dtype = compute_dtype(embeddings, centers)
    with no_autocast(embeddings):
        y, c = embeddings.to(dtype), centers.to(dtype)
        intra = distances_to_own(y, c, labels).mean()

        fixed = c.detach()
        related = torch.cdist(fixed, fixed, compute_mode=EXACT) < margin
        in_kernels = chosen is None and runs_kernels(y, (torch.float32,))
        # Compiled code has no second derivative anyway, and one operator for all batch sizes is compiled but once.
        if in_kernels or chunk_size < batch or torch.compiler.is_compiling():
            check_no_vmap()
            rows = None if in_kernels else chunk_size
            with_gradient = torch.is_grad_enabled() and y.requires_grad
            pairs, _ = _PairsOnce.apply(y, labels, related, margin, rows, with_gradient)
        else:
            first, second = labels[torch.triu_indices(batch, batch, 1, device=labels.device)]
            pairs = _pair_terms(distances_within(y), first, second, related, margin).sum()
        inter = pairs / max(batch * (batch - 1) / 2, 1)
    return DFACCTerms(intra, inter)


def _pair_terms(distances: Tensor, first: Tensor, second: Tensor, related: Tensor, margin: float) -> Tensor:
    """L_uv of pairs with these distances and these labels; 0 for pairs of one generator."""
    values = torch.where(related[first, second], F.relu(distances - margin), -distances)
    return torch.where(first != second, values, 0.0)


def _pair_slopes(distances: Tensor, first: Tensor, second: Tensor, related: Tensor, margin: float) -> Tensor:
    """The derivatives of :func:`_pair_terms` by the distances."""
    values = torch.where(related[first, second], (distances > margin).to(distances.dtype), -1.0)
    return torch.where(first != second, values, 0.0)


class _PairsOnce(torch.autograd.Function):
    """Sum of L_uv over the pairs u < v, and its gradient: in chunks of rows, or in Triton kernels.

    Value and gradient are made together, so that distances are computed once and never kept.
    """

    @staticmethod
    def forward(
        y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_size: int | None, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        if chunk_size is None:
            from bmrl.losses._triton.launch import pairs_op

            return pairs_op(y, labels, related, margin, with_gradient)
        in_chunks = _pairs_in_chunks_op if torch.compiler.is_compiling() else _pairs_in_chunks
        return in_chunks(y, labels, related, margin, chunk_size, with_gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        check_no_vmap()
        y, gradient = ctx.saved_tensors
        return only_once(slope * gradient, slope, y), None, None, None, None, None


def _pairs_in_chunks(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_size: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Sum of L_uv over the pairs u < v, and its gradient, a square of pairs at a time."""
    y = y.contiguous()  # PyTorch's backward passes of distances take no other
    total = y.new_zeros(())
    gradient = torch.zeros_like(y) if with_gradient else y.new_empty((0,))
    squares = list(chunks(y.shape[0], chunk_size))
    for place, chunk in enumerate(squares):
        rows = y[chunk]
        distances = torch.pdist(rows)
        one, other = labels[chunk][torch.triu_indices(len(rows), len(rows), 1, device=labels.device)]
        total += _pair_terms(distances, one, other, related, margin).sum()
        if with_gradient:
            slopes = _pair_slopes(distances, one, other, related, margin)
            gradient[chunk] += torch.ops.aten._pdist_backward(slopes, rows, 2.0, distances)
        for later in squares[place + 1 :]:
            others = y[later]
            distances = distances_between(rows, others)
            one, other = labels[chunk, None], labels[None, later]
            total += _pair_terms(distances, one, other, related, margin).sum()
            if with_gradient:
                slopes = _pair_slopes(distances, one, other, related, margin)
                backward = torch.ops.aten._cdist_backward
                gradient[chunk] += backward(slopes, rows, others, 2.0, distances)
                gradient[later] += backward(slopes.mT.contiguous(), others, rows, 2.0, distances.mT.contiguous())
    return total, gradient


@torch.library.custom_op("bmrl::dfacc_pairs_in_chunks", mutates_args=())
def _pairs_in_chunks_op(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_size: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    # The number of chunks depends on the batch: looked into, each batch size would be compiled anew.
    return _pairs_in_chunks(y, labels, related, margin, chunk_size, with_gradient)


@_pairs_in_chunks_op.register_fake
def _(
    y: Tensor, labels: Tensor, related: Tensor, margin: float, chunk_size: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    return y.new_empty(()), y.new_empty(y.shape if with_gradient else (0,))


def dfacc_loss(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    margin: float = 0.7,
    inter_weight: float = 0.5,
    chunk_size: int | None = None,
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

    Memory grows as ``batch ** 2`` up to ``chunk_size`` rows (on CUDA the backward pass needs a buffer of
    ``batch ** 2 * dim``), and as ``batch`` above: the distances between two chunks of rows are then computed together
    with their gradient, and not kept. That form has no second derivative.

    On an NVIDIA GPU with Triton, unless ``chunk_size`` is given or the dtype is float64, kernels compute the pairs of
    any batch so, in float32 and in memory that grows as ``batch``; results repeat to the bit. They have no second
    derivative either.

    Args:
        embeddings: ``(batch, dim)``, floating point, batch >= 1; one row a sample.
        labels: ``(batch,)`` int64 in 0..num_generators-1, the generator of each row. Values, like those of
            the other tensors, are checked on the CPU alone: a check would make a GPU wait, and its indexing kernel
            asserts the range of labels.
        centers: ``(num_generators, dim)``, floating point; row k is the center of generator k. They learn from the
            first term only: the choice of the branch passes no gradient.
        margin: m >= 0, in the unit of the embeddings.
        inter_weight: lambda >= 0.
        chunk_size: rows of a chunk, >= 1: distances are held for the pairs of two chunks; at least ``batch`` for the
            dense form. None takes the kernels where they run, elsewhere the dense form up to 1024 rows and chunks of
            512 rows above.
        gather: with ``torch.distributed`` initialized, the batch is that of all processes, which may differ in
            length: each returns the loss of the whole, and the *mean* of their gradients, which
            ``DistributedDataParallel`` and FSDP make, is its gradient. ``centers`` must be equal in all processes; each
            gets their whole gradient. Memory and work of a process are those of the whole batch. Every argument must
            be the same in all processes, but for the number of rows: if shapes, dtypes, settings, or what is None
            differ, all processes raise one error. (Only ``gather`` itself can't be compared: all must have it on.)
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
            ``inter_weight`` that is negative or not finite, or ``chunk_size`` below 1.
        ConfigError: ``group`` without ``gather``, or settings that differ between processes.
        RuntimeError: the gradient of a loss computed in chunks, or by the kernels, is differentiated again.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss = dfacc_loss(embeddings, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        >>> round(loss.item(), 4)
        0.2929
    """
    check_gather(gather, group)
    if gather:
        same = {"loss": "dfacc_loss", "margin": margin, "inter_weight": inter_weight, "chunk_size": chunk_size}
        same["centers"] = centers
        embeddings, labels = gather_rows({"embeddings": embeddings, "labels": labels}, group=group, same=same)
    check_weight("inter_weight", inter_weight)
    intra, inter = dfacc_terms(embeddings, labels, centers, margin=margin, chunk_size=chunk_size)
    return intra + float(inter_weight) * inter


class DFACCLoss(nn.Module):
    """Module form of :func:`dfacc_loss`, which owns the centers.

    Give ``centers`` a learning rate of its own (50 times the model's is a good start) and no weight decay.

    Args:
        num_generators: number of centers, >= 1.
        embed_dim: their width, >= 1.
        margin: see :func:`dfacc_loss`.
        inter_weight: see :func:`dfacc_loss`.
        chunk_size: see :func:`dfacc_loss`.
        gather: see :func:`dfacc_loss`. The centers of all processes are set to those of the first.
        group: see :func:`dfacc_loss`.
        init: where centers start: ``"sphere"``, random unit vectors, for L2-normalized embeddings; ``"simplex"``,
            random probability vectors, for probabilities.

    Raises:
        DTypeError, RangeError: an argument is of the wrong type or out of range.

    Example:
        >>> loss = DFACCLoss(num_generators=7, embed_dim=16)
        >>> loss(F.normalize(torch.randn(4, 16)), torch.tensor([0, 3, 3, 6])).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_generators: int,
        embed_dim: int,
        *,
        margin: float = 0.7,
        inter_weight: float = 0.5,
        chunk_size: int | None = None,
        gather: bool = False,
        group: ProcessGroup | None = None,
        init: CenterInit = "sphere",
    ) -> None:
        super().__init__()
        check_weight("margin", margin)
        check_weight("inter_weight", inter_weight)
        check_count("chunk_size", chunk_size, optional=True)
        check_gather(gather, group)
        self.margin = margin
        self.inter_weight = inter_weight
        self.chunk_size = chunk_size
        self.gather = gather
        self._group = GroupReference(group)
        self.centers = nn.Parameter(random_centers(num_generators, embed_dim, init))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``embeddings`` ``(batch, embed_dim)`` with ``labels`` ``(batch,)``."""
        if self.gather:
            embeddings, labels = gather_for(self, self._group, embeddings=embeddings, labels=labels)
        return dfacc_loss(
            embeddings,
            labels,
            self.centers,
            margin=self.margin,
            inter_weight=self.inter_weight,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        num_generators, embed_dim = self.centers.shape
        return f"{num_generators}, {embed_dim}, margin={self.margin}, inter_weight={self.inter_weight}"
