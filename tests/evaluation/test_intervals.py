from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bmrl.errors import RangeError
from bmrl.evaluation.intervals import wilson_interval


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_equals_scipy(total, data, confidence):
    successes = data.draw(st.integers(0, total))
    expected = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, total, confidence=confidence)
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= found.low <= successes / total <= found.high <= 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 0), {}, r"total: expected an integer >= 1, got 0"),
        ((3, 2), {}, r"successes: expected 0 .. 2, got 3"),
        ((-1, 2), {}, r"successes: expected 0 .. 2, got -1"),
        ((1, 2), {"confidence": 1.0}, r"confidence: expected between 0 and 1, got 1.0"),
        ((1, 2), {"confidence": math.nan}, r"confidence: expected between 0 and 1, got nan"),
    ],
)
def test_rejects(arguments, options, message):
    with pytest.raises(RangeError, match=message):
        wilson_interval(*arguments, **options)
