"""Scores by distances in the embedding: to class means, to centers, to neighbors and to a subspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from bmrl.inference.scores.base import BufferScore

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from bmrl.inference.scores.base import FittingData

__all__ = ["CenterDistance", "Mahalanobis", "NearestNeighbors", "PrincipalResidual", "RelativeMahalanobis"]

RIDGE = 1e-2
"""Share of the mean variance that is added to each: classes of few pictures span fewer dimensions than there are."""

NEIGHBORS = 10
"""The neighbor whose distance counts; fewer where a class has fewer pictures."""

MOST_NEIGHBORS = 20_000
"""Training pictures that are kept, evenly over the classes: each costs ``4 * d`` bytes in the file and the graph."""

EXPLAINED = 0.95
"""Share of the variance that the principal subspace holds."""


class Mahalanobis(BufferScore):
    r"""The negative squared Mahalanobis distance to the nearest class mean, the covariance shared by the classes.

    :math:`-\min_k (y - \mu_k)^T \Sigma^{-1} (y - \mu_k)`, as :math:`-\min_k \lVert W y - W \mu_k \rVert^2` with
    :math:`W^T W = \Sigma^{-1}`.

    Source: Lee et al., arXiv:1807.03888.
    """

    NAMES = ("whitening", "means")

    whitening: Tensor
    means: Tensor

    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Take the class means and the covariance around them; float64 within."""
        means = data.class_means()
        whitening = _whitening(data.embeddings.double() - means[data.labels])
        return cls(whitening=whitening, means=means @ whitening.T)

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``, at most 0."""
        return -_squared_distances(embedding @ self.whitening.T, self.means).amin(dim=-1)


class RelativeMahalanobis(BufferScore):
    r"""Mahalanobis distance to all pictures at once, minus that to the nearest class.

    What makes an image unlike every face, such as its size or its container, counts in both and cancels out.

    Source: Ren et al., arXiv:2106.09022.
    """

    NAMES = ("whitening", "means", "common_whitening", "common_mean")

    whitening: Tensor
    means: Tensor
    common_whitening: Tensor
    common_mean: Tensor

    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Take the classes' and the common mean and covariance; float64 within."""
        embeddings = data.embeddings.double()
        means, common = data.class_means(), embeddings.mean(dim=0, keepdim=True)
        within = _whitening(embeddings - means[data.labels])
        around = _whitening(embeddings - common)
        return cls(whitening=within, means=means @ within.T, common_whitening=around, common_mean=common @ around.T)

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``."""
        near = _squared_distances(embedding @ self.whitening.T, self.means).amin(dim=-1)
        return _squared_distances(embedding @ self.common_whitening.T, self.common_mean)[:, 0] - near


class NearestNeighbors(BufferScore):
    """The negative distance to the tenth nearest training picture, both L2-normalized.

    Source: Sun et al., arXiv:2204.06507.
    """

    NAMES = ("embeddings", "neighbors")

    embeddings: Tensor
    neighbors: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__(**tensors)
        self.k = int(self.neighbors)

    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Keep training embeddings, the first ones of each class where there are too many."""
        share = -(-MOST_NEIGHBORS // data.num_classes)
        kept = torch.cat([(data.labels == label).nonzero()[:share, 0] for label in range(data.num_classes)])
        least = int(data.labels.bincount(minlength=data.num_classes).min())
        neighbors = torch.tensor(float(min(NEIGHBORS, least)))
        return cls(embeddings=F.normalize(data.embeddings[kept].double(), dim=-1), neighbors=neighbors)

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)`` in -2 .. 0."""
        unit = F.normalize(embedding, dim=-1)
        kth = (unit @ self.embeddings.T).topk(self.k, dim=-1).indices[:, -1]
        return -(unit - self.embeddings[kth]).square().sum(dim=-1).sqrt()  # of a cosine near 1 no digits are left


class CenterDistance(BufferScore):
    r"""The negative distance to the nearest center of the DFACC loss, :math:`-\min_k \lVert y - c_k \rVert_2`.

    Source: arXiv:2504.14129, eq. 5, used as a score.
    """

    NAMES = ("centers",)

    centers: Tensor

    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Take the centers that were learned, or the mean embedding of each class where none were."""
        return cls(centers=data.class_means() if data.centers is None else data.centers)

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``, at most 0."""
        return -_squared_distances(embedding, self.centers).amin(dim=-1).sqrt()


class PrincipalResidual(BufferScore):
    r"""The negative length of what an embedding has outside the training embeddings' principal subspace.

    The subspace holds 95 % of the variance, in at most d - 1 of the d dimensions:
    :math:`-\lVert (I - P P^T)(y - \mu) \rVert_2`.

    Source: Wang et al., arXiv:2203.10807 (the residual of ViM).
    """

    NAMES = ("mean", "components")

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, data: FittingData) -> Self:
        """Take the mean and the principal components; float64 within."""
        embeddings = data.embeddings.double()
        mean = embeddings.mean(dim=0)
        _, values, vectors = torch.linalg.svd(embeddings - mean, full_matrices=False)
        explained = values.square().cumsum(0) / values.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        kept = int((explained < EXPLAINED).sum()) + 1
        return cls(mean=mean, components=vectors[: min(kept, max(embeddings.shape[1] - 1, 1))])

    def forward(self, logits: Tensor, embedding: Tensor) -> Tensor:
        """Return ``(batch,)``, at most 0."""
        centered = embedding - self.mean
        residual = centered - (centered @ self.components.T) @ self.components
        return -residual.square().sum(dim=-1).sqrt()


def _whitening(deviations: Tensor) -> Tensor:
    """Return ``(d, d)`` W with W^T W the inverse of the deviations' covariance, with a ridge."""
    dim = deviations.shape[1]
    covariance = deviations.T @ deviations / len(deviations)
    variance = covariance.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    covariance = covariance + RIDGE * variance * torch.eye(dim, dtype=covariance.dtype, device=covariance.device)
    factor = torch.linalg.cholesky(covariance)  # L L^T = covariance, so that L^-1 whitens
    return torch.linalg.solve_triangular(factor, torch.eye(dim, dtype=factor.dtype, device=factor.device), upper=False)


def _squared_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Return ``(batch, centers)``, of differences: exact also for points that lie close to a center."""
    return (points[:, None] - centers[None]).square().sum(dim=-1)
