"""Every loss by every provider, forward and backward: answer first, then time and memory.

python -m pytest benchmarks/test_losses.py [--on cuda] [--out FOLDER]
"""

from __future__ import annotations

import dataclasses
import sys
import time

import pytest
import torch

from benchmarks.harness import gpu_seconds, speedup, write_results
from benchmarks.losses import LOSSES, added_memory, gradients

_CHECKED = 1500
"""Rows of the batch on which answers are compared; enough for ours to be cut into chunks."""
_SECONDS_PER_CASE = 2.0
_NO_RATIO = dict.fromkeys(("median", "low", "high"), float("nan"))
_PACKAGES = {"pytorch-metric-learning": "pytorch_metric_learning", "open_clip": "open_clip"}


@dataclasses.dataclass(frozen=True)
class LossMeasurement:
    """One provider of one loss at one batch size, forward and backward."""

    loss: str
    provider: str
    batch: int
    median_s: float
    low_s: float
    high_s: float
    rounds: int
    added_mib: float | None
    """Memory at the peak beyond the inputs; None where it could not be measured."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize(
        ("loss", "provider", "batch"),
        [
            pytest.param(name, provider, batch, id=f"{name}-{provider}-{batch}")
            for name, case in LOSSES.items()
            for batch in metafunc.config.getoption("--batches") or case.batches
            for provider, how in case.providers.items()
            if batch <= how.largest_batch
        ],
    )


@pytest.fixture(scope="module")
def record(request):
    """The measurements of this module, written with their ratios at its end."""
    measurements: list[LossMeasurement] = []
    yield measurements
    out, device = request.config.getoption("--out"), request.config.getoption("--on")
    write_results(out, "losses", device, _with_ratios(measurements), _table)


def _with_ratios(measurements):
    """Rows of plain data, with the ratio of the plain provider's time to each, by median and by quartiles."""
    plain = {(m.loss, m.batch): m for m in measurements if m.provider == LOSSES[m.loss].plain}
    rows = []
    for m in measurements:
        row = dataclasses.asdict(m)
        if (baseline := plain.get((m.loss, m.batch))) is not None:
            row["speedup_over_plain"] = speedup(baseline, m)
        rows.append(row)
    return rows


def _table(rows, environment):
    """The measurements as a Markdown page."""
    lines = [
        f"{environment['device']}, {environment['threads']} threads, torch {environment['torch']}. Times are medians; "
        "ratios are those of the plain form's time to the provider's, with the least and most favorable quartiles; "
        "memory is what forward and backward add at their peak.",
        "",
        "| loss | batch | provider | ms | times as fast as the plain form | MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["loss"], row["batch"])):
        name = row["provider"] + (" (plain)" if row["provider"] == LOSSES[row["loss"]].plain else "")
        ratio = "{median:.2f} ({low:.2f}-{high:.2f})".format(**row.get("speedup_over_plain", _NO_RATIO))
        memory = "-" if row["added_mib"] is None else f"{row['added_mib']:.1f}"
        lines.append(f"| {row['loss']} | {row['batch']} | {name} | {1e3 * row['median_s']:.3g} | {ratio} | {memory} |")
    return "\n".join(lines) + "\n"


def test_loss(benchmark, request, record, loss, provider, batch):
    for distribution, package in _PACKAGES.items():
        if provider.startswith(distribution):
            pytest.importorskip(package)
    device = request.config.getoption("--on")
    case = LOSSES[loss]
    how = case.providers[provider]

    if how.same_loss:
        few = case.inputs(min(batch, _CHECKED), device)
        exact = [one.detach().double() if one.is_floating_point() else one for one in few]
        exact = [one.requires_grad_() if one.is_floating_point() else one for one in exact]
        wanted = gradients(case.providers[case.plain].run, tuple(exact))
        for got, want in zip(gradients(how.run, few), wanted, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())

    inputs = case.inputs(batch, device)
    if device == "cuda":
        try:
            memory, (median, low, high, rounds) = _on_gpu(lambda: gradients(how.run, inputs))
        except torch.OutOfMemoryError:
            if provider.startswith("bmrl"):  # ours must fit
                raise
            pytest.skip(f"{provider} needs more than the memory of this GPU at batch {batch}")
    else:
        memory = added_memory(loss, provider, batch) if sys.platform == "linux" else None
        began = time.perf_counter()
        gradients(how.run, inputs)
        rounds = min(max(int(_SECONDS_PER_CASE / (time.perf_counter() - began)), 3), 500)
        benchmark.pedantic(gradients, (how.run, inputs), rounds=rounds, iterations=1, warmup_rounds=1)
        stats = benchmark.stats.stats
        median, low, high = stats.median, stats.q1, stats.q3
    record.append(LossMeasurement(loss, provider, batch, median, low, high, rounds, memory))


def _on_gpu(function):
    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = function()
    memory = (torch.cuda.max_memory_allocated() - before) / 2**20
    del kept
    return memory, gpu_seconds(function)
