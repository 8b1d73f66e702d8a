from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bmrl.training.loading import EpochSampler, training_loader


@given(st.integers(0, 50), st.integers(0, 1000), st.integers(0, 100))
def test_order_depends_on_seed_and_epoch_alone(size, seed, epoch):
    first, second = EpochSampler(size, seed=seed), EpochSampler(size, seed=seed)
    list(first)  # what was drawn before does not matter
    first.set_epoch(epoch)
    second.set_epoch(epoch)
    assert list(first) == list(second)
    assert sorted(first) == list(range(size))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_classes_are_drawn_in_their_shares(labels, balance, seed, epoch):
    sampler = EpochSampler(len(labels), seed=seed, labels=labels, balance=balance)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert drawn == list(sampler)
    assert len(drawn) == len(labels)
    sizes = {label: labels.count(label) for label in set(labels)}
    total = sum(size ** (1 - balance) for size in sizes.values())
    times = Counter(drawn)
    for label, size in sizes.items():
        own = [times[index] for index, each in enumerate(labels) if each == label]
        assert abs(sum(own) - len(labels) * size ** (1 - balance) / total) < 1 + 1e-6
        assert max(own) - min(own) <= 1


def test_epochs_differ():
    sampler = EpochSampler(100, seed=0)
    before = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != before


def test_a_smaller_last_batch_is_left_out_only_if_there_is_a_full_one():
    assert [len(batch) for batch in training_loader(list(range(10)), batch_size=4, seed=0)] == [4, 4]
    assert [len(batch) for batch in training_loader(list(range(3)), batch_size=4, seed=0)] == [3]
