"""Each provider of an operator that a benchmark measures answers as float64 does, of those that are installed."""

from __future__ import annotations

import pytest

from benchmarks.harness import assert_equal_to
from benchmarks.providers import OPERATORS
from benchmarks.test_operators import _NEEDS

CASES = [
    (operator, provider)
    for operator, entry in OPERATORS.items()
    for provider, how in entry.providers.items()
    if "cpu" in how.devices and "compiled" not in provider
]


@pytest.mark.parametrize(("operator", "provider"), CASES, ids=["-".join(case) for case in CASES])
def test_a_provider_answers_as_float64(operator, provider):
    if provider in _NEEDS:
        pytest.importorskip(_NEEDS[provider])
    entry, how = OPERATORS[operator], OPERATORS[operator].providers[provider]
    images = entry.images(1, "cpu", seed=0)
    assert_equal_to(entry.exact(images), how.run(images), border=how.border, atol=entry.atol)
