"""The images of a split, in batches whose order depends only on the seed and the epoch, as a resumed run needs."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bmrl.data.dataset import FaceDataset
from bmrl.errors import DataError
from bmrl.training.picture_augmentation import AugmentedFaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from bmrl.data.manifest import Manifest
    from bmrl.models import BMRLConfig
    from bmrl.training.picture_augmentation import AugmentationConfig

__all__ = ["EpochSampler", "evaluation_loader", "load_split", "training_loader", "without_missing_maps"]

_logger = logging.getLogger(__name__)


class EpochSampler(Sampler[Any]):
    """All indices in a random order that :meth:`set_epoch` decides; Lightning calls it before each epoch.

    Args:
        size: how many indices.
        seed: >= 0.
        labels: the class of each index, for ``balance``.
        balance: in [0, 1]. A class of n indices is drawn in proportion to n ** (1 - balance); within a class, no index
            is drawn more than once more than another.
        with_epoch: draw pairs of the epoch and an index, for a data set whose samples change with the epoch.
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        labels: Sequence[int] | None = None,
        balance: float = 0.0,
        with_epoch: bool = False,
    ) -> None:
        self.size = size
        self.seed = seed
        self.labels = torch.tensor(labels if labels is not None and balance else [0] * size, dtype=torch.int64)
        self.balance = balance
        self.with_epoch = with_epoch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        rng = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = (self._drawn(rng) if self.balance else torch.randperm(self.size, generator=rng)).tolist()
        yield from ((self.epoch, index) for index in order) if self.with_epoch else order

    def _drawn(self, rng: torch.Generator) -> Tensor:
        """Return as many indices as there are, the classes in their shares."""
        _, labels, counts = self.labels.unique(return_inverse=True, return_counts=True)
        shares = counts.double() ** (1 - self.balance)
        exact = self.size * shares / shares.sum()
        quotas = (exact + 1e-9).floor().long()
        left = self.size - int(quotas.sum())
        if left:
            quotas[torch.multinomial(exact - quotas + 1e-9, left, generator=rng)] += 1
        drawn = []
        for label, quota in enumerate(quotas.tolist()):
            own = (labels == label).nonzero()[:, 0]
            rounds = -(-quota // len(own))
            drawn += [own[torch.randperm(len(own), generator=rng)] for _ in range(rounds)]
            if rounds:
                drawn[-1] = drawn[-1][: quota - (rounds - 1) * len(own)]
        indices = torch.cat(drawn)
        return indices[torch.randperm(self.size, generator=rng)]


def training_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    seed: int,
    balance: float = 0.0,
    augmentation: AugmentationConfig | None = None,
    workers: int = 0,
) -> DataLoader[Any]:
    """Return shuffled batches; a smaller last batch is left out if there is a full one.

    Args:
        dataset: of training samples.
        batch_size: >= 1.
        seed: >= 0, of the order and of the changes of the samples; neither depends on ``workers``.
        balance: how far small classes are drawn more often, see :class:`EpochSampler`; more than 0 needs
            ``dataset.labels``.
        augmentation: how samples are changed; None leaves them.
        workers: processes that read and change samples ahead; 0 does it between the steps.
    """
    size = len(dataset)  # type: ignore[arg-type]
    labels = dataset.labels if balance else None  # type: ignore[attr-defined]
    changed = augmentation is not None and augmentation.is_on
    if augmentation is not None and changed:
        dataset = AugmentedFaces(dataset, augmentation, seed=seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(size, seed=seed, labels=labels, balance=balance, with_epoch=changed),
        drop_last=size >= batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def evaluation_loader(dataset: Dataset[Any], *, batch_size: int) -> DataLoader[Any]:
    """Return all samples in order."""
    return DataLoader(dataset, batch_size=batch_size)


def load_split(manifest: Manifest, config: BMRLConfig, split: str) -> FaceDataset:
    """Return the seen images of a split; with parsing maps if they are trained on.

    Raises:
        DataError: a class of the model has no training image, so that it would never be learned.
    """
    dataset = FaceDataset(
        manifest,
        split=split,
        image_size=config.image_size,
        generators=config.generators,
        parsing=config.parsing is not None and split == "train",
    )
    absent = [generator.name for label, generator in enumerate(config.generators) if label not in dataset.labels]
    if split == "train" and absent:
        raise DataError(f"{manifest.root}: expected training images of every seen generator, got none of {absent[0]}")
    return dataset


def without_missing_maps(config: BMRLConfig, train_set: FaceDataset) -> BMRLConfig:
    """Return the configuration with the parsing branch off if no training image has a map, and say so in the log."""
    if config.parsing is None or train_set.num_parsing:
        return config
    _logger.warning("no parsing maps found; the parsing branch is off")
    return dataclasses.replace(config, parsing=None)
