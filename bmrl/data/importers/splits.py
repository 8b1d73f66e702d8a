"""Assign groups of images to train, val and test: reproducibly, and in the same shares for every generator."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from bmrl._checks import check_not_negative
from bmrl.errors import RangeError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["assign_splits", "check_shares", "merge_groups"]


def check_shares(val: float, test: float) -> None:
    """Check that ``val`` and ``test`` are shares that leave something to train on.

    Raises:
        RangeError: one is negative, or together they reach 1.
    """
    check_not_negative("val", val)
    check_not_negative("test", test)
    if not val + test < 1:
        raise RangeError(f"val, test: expected a sum below 1, got {val} + {test}")


def assign_splits(groups: Mapping[str, Mapping[str, int]], *, val: float, test: float, seed: int) -> dict[str, str]:
    """Return the split of every group.

    The generators are taken in turn, smallest first; the groups of one that are still free are taken largest first,
    ties in the order of a hash of seed and name, and each goes where the generator lacks most of its share. So the
    order of ``groups`` does not matter, no group is torn apart, and every generator comes as close to its shares as the
    sizes of its groups and those it has in common with smaller generators allow (the idea of iterative
    stratification: Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011).

    Args:
        groups: the number of images of each generator, by group.
        val: >= 0, the share of validation images.
        test: >= 0, the share of test images; ``val + test < 1``.
        seed: another seed gives another assignment.

    Raises:
        RangeError: the shares are out of range.

    Example:
        >>> assign_splits({"a": {"ddpm": 8}, "b": {"ddpm": 2}}, val=0, test=0.2, seed=0)
        {'a': 'train', 'b': 'test'}
    """
    check_shares(val, test)
    shares = {
        "test": test,
        "val": val,
        "train": 1 - val - test,
    }  # ties go to the smaller sets
    totals: Counter[str] = Counter()
    for sizes in groups.values():
        totals.update(sizes)
    lacking = {split: {name: share * total for name, total in totals.items()} for split, share in shares.items()}

    members: dict[str, list[str]] = {name: [] for name in totals}
    for group, sizes in groups.items():
        for name in sizes:
            members[name].append(group)

    assigned: dict[str, str] = {}
    for name in sorted(totals, key=lambda name: (totals[name], name)):
        free = {group: (-groups[group][name], _hash(seed, group)) for group in members[name] if group not in assigned}
        for group in sorted(free, key=free.__getitem__):
            split = max(lacking, key=lambda split: round(lacking[split][name], 9))
            assigned[group] = split
            for other, size in groups[group].items():
                lacking[split][other] -= size
    return assigned


def merge_groups(groups: Collection[str], ties: Collection[Collection[str]]) -> dict[str, str]:
    """Return the group that each group becomes when those of each tie are one: the alphabetically first of them."""
    parents = {group: group for group in groups}

    def top(group: str) -> str:
        while parents[group] != group:
            parents[group] = group = parents[parents[group]]
        return group

    for tie in ties:
        first, *others = sorted({top(group) for group in tie})
        for other in others:
            parents[other] = first
    return {group: top(group) for group in groups}


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}/{group}".encode()).digest()
