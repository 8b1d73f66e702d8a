from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmrl.data.importers.splits import assign_splits, merge_groups
from bmrl.errors import RangeError

GROUPS = st.dictionaries(st.text(), st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1), min_size=1)


@given(GROUPS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_depends_on_nothing_but_groups_and_seed(groups, seed, random):
    names = list(groups)
    random.shuffle(names)
    shuffled = {name: groups[name] for name in names}
    first, second = (assign_splits(each, val=0.1, test=0.2, seed=seed) for each in (groups, shuffled))
    assert first == second
    assert first.keys() == groups.keys()
    assert set(first.values()) <= {"train", "val", "test"}


@given(
    st.lists(st.text(), min_size=1, unique=True), st.sampled_from([0.0, 0.1, 0.25]), st.sampled_from([0.0, 0.2, 0.5])
)
def test_shares_are_met_to_one_image_when_groups_are_single(names, val, test):
    splits = Counter(assign_splits({name: {"ddpm": 1} for name in names}, val=val, test=test, seed=1).values())
    for split, share in (("val", val), ("test", test), ("train", 1 - val - test)):
        assert abs(splits[split] - share * len(names)) <= 1
        assert share > 0 or not splits[split]


def test_shares_are_met_for_every_generator_when_groups_are_shared():
    groups = {str(i): {name: 1 for name, size in (("a", 40), ("b", 100), ("c", 300)) if i < size} for i in range(300)}
    assigned = assign_splits(groups, val=0.1, test=0.2, seed=0)
    for name, size in (("a", 40), ("b", 100), ("c", 300)):
        counts = Counter(assigned[group] for group, sizes in groups.items() if name in sizes)
        assert counts == {"train": 0.7 * size, "val": 0.1 * size, "test": 0.2 * size}


def test_another_seed_assigns_otherwise():
    groups = {str(i): {"a": 1} for i in range(50)}
    first, second = (assign_splits(groups, val=0.1, test=0.2, seed=seed) for seed in (0, 1))
    assert first != second
    assert Counter(first.values()) == Counter(second.values())


@given(st.integers(1, 12), st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=4), max_size=6))
def test_merged_groups_are_the_connected_ones(num_groups, ties):
    ties = [[str(group % num_groups) for group in tie] for tie in ties]
    merged = merge_groups({str(group) for group in range(num_groups)}, ties)
    reached = {str(group): {str(group)} for group in range(num_groups)}
    for _ in range(num_groups):  # spread along the ties until nothing changes
        for tie in ties:
            together = set().union(*(reached[group] for group in tie))
            for group in together:
                reached[group] = reached[group] | together
    assert merged == {group: min(found) for group, found in reached.items()}


def test_rejects_shares_that_leave_nothing():
    for val, test, message in (
        (0.5, 0.5, r"val, test: expected a sum below 1, got 0\.5 \+ 0\.5"),
        (-0.1, 0.2, r"val: expected >= 0, got -0\.1"),
        (0.1, float("nan"), "test: expected >= 0, got nan"),
    ):
        with pytest.raises(RangeError, match=message):
            assign_splits({"a": {"a": 1}}, val=val, test=test, seed=0)
