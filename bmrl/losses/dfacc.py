r"""The deepfake attribution contrastive center (DFACC) loss: eq. 4-7 of arXiv:2504.14129.

Samples are pulled to the center of their generator. Samples of two *related* generators (centers closer than a
margin) are pulled together as well, until they are a margin apart; those of unrelated generators are pushed away.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._checks import check_not_negative
from bmrl.losses._batches import check_clusters
from bmrl.losses._initial_centers import CenterInit, random_centers

__all__ = ["DFACCLoss", "DFACCTerms", "dfacc_loss", "dfacc_terms"]

# The matrix-product form of a distance, torch.cdist's own choice above 25 rows, loses near-duplicates to rounding.
_EXACT = "donot_use_mm_for_euclid_dist"


class DFACCTerms(NamedTuple):
    """The two terms of the DFACC loss, before they are weighted: scalars, float32 at least."""

    intra: Tensor
    inter: Tensor


def dfacc_terms(embeddings: Tensor, labels: Tensor, centers: Tensor, *, margin: float = 0.7) -> DFACCTerms:
    r"""The intra-generator and the inter-generator term of :func:`dfacc_loss`, apart.

    Takes the arguments of :func:`dfacc_loss`, without the weight that joins the terms, and raises the same errors.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> terms = dfacc_terms(embeddings, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        >>> [round(term.item(), 4) for term in terms]
        [1.0, -1.4142]
    """
    check_clusters(embeddings, labels, centers)
    check_not_negative("margin", margin)
    compute_dtype = torch.promote_types(torch.promote_types(embeddings.dtype, centers.dtype), torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        y, c = embeddings.to(compute_dtype), centers.to(compute_dtype)
        intra = torch.cdist(y, c, compute_mode=_EXACT).gather(1, labels[:, None]).mean()

        fixed = c.detach()
        related = torch.cdist(fixed, fixed, compute_mode=_EXACT) < margin
        distances = torch.cdist(y, y, compute_mode=_EXACT)
        pulled = related[labels[:, None], labels[None, :]]
        pairs = torch.where(pulled, F.relu(distances - margin), -distances)
        different = labels[:, None] != labels[None, :]
        batch = y.shape[0]
        # Every pair stands twice in the matrix, so this is the mean over pairs u < v of eq. 5.
        inter = torch.where(different, pairs, 0.0).sum() / max(batch * (batch - 1), 1)
    return DFACCTerms(intra, inter)


def dfacc_loss(
    embeddings: Tensor, labels: Tensor, centers: Tensor, *, margin: float = 0.7, inter_weight: float = 0.5
) -> Tensor:
    r"""The DFACC loss of a labelled batch (eq. 4-7 of arXiv:2504.14129).

    .. math::
        L = \frac{1}{b} \sum_u \lVert y_u - c_{k(u)} \rVert_2
            + \lambda \frac{2}{b (b - 1)} \sum_{u < v,\, k(u) \ne k(v)} L_{uv}

    where :math:`L_{uv} = \max(\lVert y_u - y_v \rVert_2 - m, 0)` if
    :math:`\lVert c_{k(u)} - c_{k(v)} \rVert_2 < m`, and :math:`-\lVert y_u - y_v \rVert_2` otherwise.

    The second case has no lower bound, so give embeddings that have one: L2-normalised vectors or probabilities.
    Distances are computed from differences, exact for near-duplicates too. Between coincident points their first and
    second derivatives are 0. Memory grows as ``batch ** 2`` (on CUDA the backward pass needs a buffer of
    ``batch ** 2 * dim``).

    Args:
        embeddings: ``(batch, dim)``, floating point, batch >= 1; one row a sample.
        labels: ``(batch,)`` int64 in 0..num_generators-1, the generator of each row. Their range is checked on the
            CPU alone: a check on a GPU would stall it, and the indexing kernel asserts there.
        centers: ``(num_generators, dim)``, floating point; row k is the center of generator k. They learn from the
            first term only: the choice of the branch passes no gradient.
        margin: m >= 0, in the unit of the embeddings.
        inter_weight: lambda >= 0.

    Returns:
        Scalar; negative where pushing apart outweighs pulling together. With L2-normalised embeddings and centers
        it lies in ``-2 * inter_weight .. 2 + 2 * inter_weight``. float32 at least (half inputs are upcast). One
        sample has no pairs, so the second term is 0.

    Raises:
        ShapeError: a wrong number of axes, an empty batch, or sizes that do not match.
        DTypeError: ``embeddings`` or ``centers`` is not floating point, or ``labels`` is not int64.
        DeviceError: the tensors are on different devices.
        RangeError: a label out of range, or a negative ``margin`` or ``inter_weight``.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss = dfacc_loss(embeddings, torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        >>> round(loss.item(), 4)
        0.2929
    """
    check_not_negative("inter_weight", inter_weight)
    intra, inter = dfacc_terms(embeddings, labels, centers, margin=margin)
    return intra + inter_weight * inter


class DFACCLoss(nn.Module):
    """Module form of :func:`dfacc_loss`, which owns the centers.

    Give ``centers`` a learning rate of its own (50 times the model's is a good start) and no weight decay.

    Args:
        num_generators: number of centers, >= 1.
        embed_dim: their width, >= 1.
        margin: see :func:`dfacc_loss`.
        inter_weight: see :func:`dfacc_loss`.
        init: where centers start: ``"sphere"``, random unit vectors, for L2-normalised embeddings; ``"simplex"``,
            random probability vectors, for probabilities.

    Raises:
        RangeError: an argument is out of range.

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
        init: CenterInit = "sphere",
    ) -> None:
        super().__init__()
        check_not_negative("margin", margin)
        check_not_negative("inter_weight", inter_weight)
        self.margin = margin
        self.inter_weight = inter_weight
        self.centers = nn.Parameter(random_centers(num_generators, embed_dim, init))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``embeddings`` ``(batch, embed_dim)`` with ``labels`` ``(batch,)``."""
        return dfacc_loss(embeddings, labels, self.centers, margin=self.margin, inter_weight=self.inter_weight)

    def extra_repr(self) -> str:
        """The arguments, as ``print`` shows them."""
        num_generators, embed_dim = self.centers.shape
        return f"{num_generators}, {embed_dim}, margin={self.margin}, inter_weight={self.inter_weight}"
