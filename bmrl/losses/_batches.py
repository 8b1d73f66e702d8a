"""Checks of the batches that losses take: rows, their partners, their labels, and the centers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bmrl._checks import check_dtype, check_floating, check_same_device, check_shape
from bmrl._transforms import has_values
from bmrl.errors import RangeError, ShapeError

__all__ = ["check_batch", "check_clusters", "check_finite", "check_labels", "check_paired"]


def check_batch(name: str, rows: Tensor) -> None:
    """Check for a floating-point batch ``(batch, dim)`` with at least one row: the mean of none is undefined."""
    check_shape(name, rows, "batch dim")
    check_floating(name, rows)
    if rows.shape[0] == 0:
        raise ShapeError(f"{name}: expected batch >= 1, got 0 (shape {tuple(rows.shape)})")


def check_paired(name: str, rows: Tensor, other_name: str, other: Tensor) -> None:
    """Check for a floating-point batch of the shape and on the device of another, row for row."""
    check_shape(name, rows, "batch dim")
    check_floating(name, rows)
    if rows.shape != other.shape:
        raise ShapeError(f"{name}: expected the shape of {other_name} {tuple(other.shape)}, got {tuple(rows.shape)}")
    check_same_device(name, rows, other_name, other)


def check_finite(name: str, rows: Tensor, *, squares: bool = False) -> None:
    """Check ``(batch, dim)`` for NaN and infinities, where that does not synchronize a GPU.

    With ``squares``, check also that squared distances, computed in float32 at least, stay finite.
    """
    if not has_values(rows):
        return
    rows = rows.detach()
    dtype = torch.promote_types(rows.dtype, torch.float32)
    # One number that is finite only if all are, and quicker to make than a mask; huge terms may have an infinite sum.
    summary = float(torch.linalg.vector_norm(rows, dtype=dtype) if squares else rows.sum())
    limit = math.sqrt(torch.finfo(dtype).max) / 4 if squares else math.inf
    if abs(summary) < limit:
        return
    if not rows.isfinite().all():
        row, column = (~rows.isfinite()).nonzero()[0].tolist()
        raise RangeError(f"{name}: expected finite values, got {rows[row, column].item()} in row {row}")
    if squares:
        largest = float(rows.abs().max())
        raise RangeError(
            f"{name}: expected a norm below {limit:.1e}, whose square {dtype} holds, got values to {largest:.1e}"
        )


def check_labels(labels: Tensor, rows_name: str, rows: Tensor, *, num_generators: int | None = None) -> None:
    """Check that ``labels`` holds one int64 label per row, and their range where that does not synchronize a GPU.

    On a GPU it is left to the assertions of the indexing kernels.
    """
    check_shape("labels", labels, "batch", batch=rows.shape[0])
    check_dtype("labels", labels, torch.int64)
    check_same_device("labels", labels, rows_name, rows)
    if num_generators is None or not has_values(labels):
        return
    low, high = (int(extreme) for extreme in labels.aminmax())
    if low < 0 or high >= num_generators:
        raise RangeError(f"labels: expected values in 0..{num_generators - 1}, got {low}..{high}")


def check_clusters(embeddings: Tensor, labels: Tensor, centers: Tensor) -> None:
    """Check a batch of embeddings, its labels, and the centers that the labels choose from."""
    check_shape("centers", centers, "num_generators dim")
    check_floating("centers", centers)
    check_finite("centers", centers, squares=True)
    check_batch("embeddings", embeddings)
    check_finite("embeddings", embeddings, squares=True)
    check_shape("embeddings", embeddings, "batch dim", dim=centers.shape[1])
    check_same_device("centers", centers, "embeddings", embeddings)
    check_labels(labels, "embeddings", embeddings, num_generators=centers.shape[0])
