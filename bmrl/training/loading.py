"""Batches in an order that depends on the seed and the epoch alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EpochSampler", "evaluation_loader", "training_loader"]


class EpochSampler(Sampler[int]):
    """All indices in a random order that :meth:`set_epoch` decides; Lightning calls it before each epoch.

    Args:
        size: how many indices.
        seed: >= 0.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        rng = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        yield from torch.randperm(self.size, generator=rng).tolist()


def training_loader(dataset: Dataset[Any], *, batch_size: int, seed: int) -> DataLoader[Any]:
    """Return shuffled batches; a smaller last batch is left out if there is a full one."""
    size = len(dataset)  # type: ignore[arg-type]
    return DataLoader(
        dataset, batch_size=batch_size, sampler=EpochSampler(size, seed=seed), drop_last=size >= batch_size
    )


def evaluation_loader(dataset: Dataset[Any], *, batch_size: int) -> DataLoader[Any]:
    """Return all samples in order."""
    return DataLoader(dataset, batch_size=batch_size)
