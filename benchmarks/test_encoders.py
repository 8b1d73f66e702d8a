"""The visual encoders at the paper's sizes, forward: answer first, then time.

python -m pytest benchmarks/test_encoders.py [--on cuda] [--out FOLDER]
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time

import pytest
import torch

from benchmarks.harness import gpu_seconds, speedup, write_results
from bmrl.encoders import AppearanceEncoder, EdgeEncoder, NoiseEncoder
from bmrl.export.standalone.artifact_runtime import keep_freed_memory
from bmrl.models import MultiPerspectiveVisualEncoder, paper_views

_BATCHES = (1, 8)
_SECONDS_PER_CASE = 2.0
ENCODERS = {
    "AE": (AppearanceEncoder, (3, 224, 224)),
    "EE": (EdgeEncoder, (1, 224, 224)),
    "NE": (NoiseEncoder, (3, 112, 112)),
    "MPVE": (lambda: MultiPerspectiveVisualEncoder(paper_views()), (3, 224, 224)),
}
PLAIN = "eager"
PROVIDERS = {
    "eager": {},
    "channels_last": {"memory_format": torch.channels_last},
    "channels_last, compiled": {"memory_format": torch.channels_last},
    "channels_last, bfloat16": {"memory_format": torch.channels_last, "dtype": torch.bfloat16},
}


@dataclasses.dataclass(frozen=True)
class EncoderMeasurement:
    """One encoder, run in one way on one batch size."""

    encoder: str
    provider: str
    batch: int
    parameters: int
    median_s: float
    low_s: float
    high_s: float
    rounds: int


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    batches = metafunc.config.getoption("--batches") or _BATCHES
    metafunc.parametrize("batch", batches)
    metafunc.parametrize("provider", PROVIDERS)
    metafunc.parametrize("encoder", ENCODERS)


@pytest.fixture(scope="module")
def record(request):
    """The measurements of this module, written with their ratios at its end."""
    measurements: list[EncoderMeasurement] = []
    yield measurements
    out, device = request.config.getoption("--out"), request.config.getoption("--on")
    plain = {(m.encoder, m.batch): m for m in measurements if m.provider == PLAIN}
    rows = [
        dataclasses.asdict(m) | {"speedup_over_plain": speedup(plain[m.encoder, m.batch], m)}
        for m in measurements
        if (m.encoder, m.batch) in plain
    ]
    write_results(out, "encoders", device, rows, _table)


def _table(rows, environment):
    """The measurements as a Markdown page."""
    lines = [
        f"{environment['device']}, {environment['threads']} threads, torch {environment['torch']}. Medians; ratios are "
        "those of eager's time to the provider's, with the least and most favorable quartiles.",
        "",
        "| encoder | million parameters | batch | provider | images/s | times as fast as eager |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: ([*ENCODERS].index(row["encoder"]), row["batch"])):
        ratio = "{median:.2f} ({low:.2f}-{high:.2f})".format(**row["speedup_over_plain"])
        rate = row["batch"] / row["median_s"]
        size = f"{row['parameters'] / 1e6:.1f}"
        lines.append(f"| {row['encoder']} | {size} | {row['batch']} | {row['provider']} | {rate:.3g} | {ratio} |")
    return "\n".join(lines) + "\n"


@functools.cache
def made(encoder, device):
    """Return an encoder, one batch of inputs, and what it makes of the first of them in float64."""
    kind, shape = ENCODERS[encoder]
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False).to(device)
    whole = encoder == "MPVE"
    size = (max(_BATCHES), *shape)
    inputs = torch.randint(0, 256, size, dtype=torch.uint8) if whole else torch.rand(size)
    exact = copy.deepcopy(module).double().cpu()(inputs[:1] if whole else inputs[:1].double())
    return module, inputs.to(device), exact


def test_encoder(benchmark, request, record, encoder, provider, batch):
    device = request.config.getoption("--on")
    keep_freed_memory()
    module, inputs, exact = made(encoder, device)
    options = PROVIDERS[provider]
    run = copy.deepcopy(module).to(**options)
    inputs = inputs.repeat(-(-batch // len(inputs)), 1, 1, 1)[:batch]
    if options.get("dtype") and inputs.is_floating_point():
        inputs = inputs.to(options["dtype"])
    if "compiled" in provider:
        run = torch.compile(run)
    with torch.inference_mode():
        answer = run(inputs)[:1].double().cpu()
        if not options.get("dtype"):
            torch.testing.assert_close(answer, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())
        if device == "cuda":
            median, low, high, rounds = gpu_seconds(lambda: run(inputs))
        else:
            began = time.perf_counter()
            run(inputs)
            rounds = min(max(int(_SECONDS_PER_CASE / (time.perf_counter() - began)), 5), 100)
            benchmark.pedantic(run, (inputs,), rounds=rounds, iterations=1, warmup_rounds=1)
            stats = benchmark.stats.stats
            median, low, high = stats.median, stats.q1, stats.q3
    parameters = sum(values.numel() for values in module.parameters())
    record.append(EncoderMeasurement(encoder, provider, batch, parameters, median, low, high, rounds))
