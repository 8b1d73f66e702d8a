"""The plane on which embeddings are drawn: t-SNE (van der Maaten & Hinton 2008), by scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bmrl._checks import check_floating, check_integer, check_shape
from bmrl.errors import MissingExtraError, RangeError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MIN_IMAGES", "project"]

MIN_IMAGES = 5
PERPLEXITY = 30.0


def project(embeddings: Tensor, *, seed: int = 0) -> Tensor:
    """Return t-SNE coordinates; the same for the same input and seed on the same machine.

    The perplexity is 30, or a third of the images where there are fewer than 90. Images of one and the same embedding
    all land at the origin.

    Args:
        embeddings: ``(n, d)`` floating point, finite, n >= 5.
        seed: of the optimization, 0 .. 2^32 - 1.

    Returns:
        ``(n, 2)`` float32 on the CPU; only nearness has a meaning, axes and scale have none.

    Raises:
        ShapeError: there are too few images. RangeError: a number is not finite. DTypeError: an argument has another
            type. MissingExtraError: scikit-learn is not installed.
    """
    check_shape("embeddings", embeddings, "images dim")
    check_floating("embeddings", embeddings)
    check_integer("seed", seed, least=0, most=2**32 - 1)
    if not embeddings.isfinite().all():
        raise RangeError("embeddings: expected finite numbers, got infinity or NaN")
    if len(embeddings) < MIN_IMAGES:
        raise ShapeError(f"embeddings: expected at least {MIN_IMAGES} images, got {len(embeddings)}")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    points = embeddings.detach().float().cpu()
    if (points == points[0]).all():
        return torch.zeros(len(points), 2)
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(points) - 1) / 3),
        init="pca" if points.shape[1] > 1 else "random",
        random_state=seed,
    )
    return torch.from_numpy(tsne.fit_transform(points.numpy())).float()
