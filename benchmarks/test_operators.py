"""Every operator by every provider at several batch sizes: answer first, then time.

python -m pytest benchmarks/test_operators.py [--on cuda] [--out FOLDER] [--batches 1 32]
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import Measurement, Session, assert_equal_to, measure
from benchmarks.providers import OPERATORS

_BATCHES = {"cpu": (1, 32, 128), "cuda": (1, 4, 16, 64, 256, 1024)}
_NEEDS = {
    "kornia": "kornia",
    "OpenCV": "cv2",
    "OpenCV, scikit-image": "cv2",
    "scikit-image": "skimage",
    "numba": "numba",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    device = metafunc.config.getoption("--on")
    batches = metafunc.config.getoption("--batches") or _BATCHES[device]
    metafunc.parametrize(
        ("operator", "provider", "batch"),
        [
            pytest.param(operator, provider, batch, id=f"{operator}-{provider}-{batch}")
            for operator, entry in OPERATORS.items()
            for provider, how in entry.providers.items()
            for batch in batches
            if device in how.devices and batch <= how.largest_batch
        ],
    )


def test_operator(benchmark, request, session: Session, operator, provider, batch):
    if provider in _NEEDS:
        pytest.importorskip(_NEEDS[provider])
    device = request.config.getoption("--on")
    entry, how = OPERATORS[operator], OPERATORS[operator].providers[provider]
    # As many as no cache holds, and no more than fit.
    copies = min(max(2, 2**28 // entry.bytes(batch)), 16)
    inputs = [entry.images(batch, device, seed=seed) for seed in range(copies)]

    first = inputs[0][: min(batch, 3)].cpu()
    answer = [part[: len(first)] for part in how.run(inputs[0])]
    assert_equal_to(entry.exact(first), answer, border=how.border, atol=entry.atol)

    with torch.no_grad():
        median, low, high, rounds = measure(benchmark, how.run, inputs)
    session.measurements.append(Measurement(operator, provider, batch, median, low, high, rounds, entry.bytes(batch)))
