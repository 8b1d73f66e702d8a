"""Timing, the machine's copy bandwidth, and the record of a benchmark session."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bmrl.export.standalone.artifact_runtime import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Measurement",
    "Session",
    "assert_equal_to",
    "environment",
    "gpu_seconds",
    "measure",
    "speedup",
    "write_results",
]

_SECONDS_PER_CASE = 0.5


@dataclass(frozen=True)
class Measurement:
    """One provider of one operator at one batch size."""

    operator: str
    provider: str
    batch: int
    median_s: float
    low_s: float
    """Lower quartile."""
    high_s: float
    """Upper quartile."""
    rounds: int
    bytes: int
    """What must move at least: the input read once, each output written once."""


@dataclass
class Session:
    """The measurements of one run on one device."""

    device: str
    copy_bandwidth: float
    """Bytes read and written per second by a copy of a large tensor."""
    measurements: list[Measurement] = field(default_factory=list)

    @classmethod
    def start(cls, device: str) -> Session:
        """Measure the copy bandwidth that the roofline is based on."""
        keep_freed_memory()  # or the order of the measurements decides who pays for page faults
        torch.backends.cudnn.allow_tf32 = False  # all providers answer in float32
        size = 2**31 if device == "cuda" else 2**28
        source = torch.ones(size // 4, device=device)
        target = torch.empty_like(source)
        if device == "cuda":
            median = gpu_seconds(lambda: target.copy_(source))[0]
        else:
            median = statistics.median(_cpu_seconds(lambda: target.copy_(source), 15))
        return cls(device, 2 * size / median)

    def rows(self) -> list[dict[str, Any]]:
        """Return plain data with the derived values: rates, roofline, and the ratio to the conv2d formulation."""
        baselines = {(m.operator, m.batch): m for m in self.measurements if m.provider == "conv2d"}
        rows = []
        for m in self.measurements:
            row = asdict(m) | {
                "images_per_s": m.batch / m.median_s,
                "gb_per_s": m.bytes / m.median_s / 1e9,
                "fraction_of_copy": m.bytes / m.median_s / self.copy_bandwidth,
            }
            if (baseline := baselines.get((m.operator, m.batch))) is not None:
                row["speedup_over_conv2d"] = speedup(baseline, m)
            rows.append(row)
        return rows

    def write(self, file: Path) -> None:
        """Write everything as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "environment": environment(self.device),
            "copy_bandwidth_gb_per_s": self.copy_bandwidth / 1e9,
            "measurements": self.rows(),
        }
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def speedup(baseline: Any, measured: Any) -> dict[str, float]:
    """Return how many times as fast as the baseline, by the medians and by the least and most favorable quartiles."""
    return {
        "median": baseline.median_s / measured.median_s,
        "low": baseline.low_s / measured.high_s,
        "high": baseline.high_s / measured.low_s,
    }


def write_results(
    out: str | None, stem: str, device: str, measurements: Any, page: Callable[[Any, dict[str, Any]], str]
) -> None:
    """Write the measurements as ``STEM_DEVICE.json`` and as the Markdown page made of them and of the environment."""
    if not out or not measurements:
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(device), "measurements": measurements}
    Path(folder, f"{stem}_{device}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    Path(folder, f"{stem}_{device}.md").write_text(page(measurements, content["environment"]), encoding="utf-8")


def environment(device: str) -> dict[str, Any]:
    """Return what a measurement depends on in addition to the code."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    for name in ("triton", "kornia", "cv2", "skimage", "numba"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            found[name] = None
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def measure(benchmark: Any, function: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> tuple[float, ...]:
    """Return median, lower and upper quartile in seconds, and the number of rounds.

    Args:
        benchmark: the fixture of pytest-benchmark, which times on the CPU; a GPU is timed by
            ``triton.testing.do_bench``, which empties the L2 cache before each round.
        function: what is timed.
        inputs: of one shape; rounds take turns through them, so that none stays in a cache.
    """
    turn = iter(range(2**62))

    def once() -> Any:
        return function(inputs[next(turn) % len(inputs)])

    if inputs[0].is_cuda:
        return gpu_seconds(once)
    once()
    begin = time.perf_counter()
    once()
    rounds = min(max(int(_SECONDS_PER_CASE / (time.perf_counter() - begin)), 5), 200)
    benchmark.pedantic(once, rounds=rounds, iterations=1, warmup_rounds=1)
    stats = benchmark.stats.stats
    return stats.median, stats.q1, stats.q3, rounds


def _cpu_seconds(function: Callable[[], Any], rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return seconds


def gpu_seconds(function: Callable[[], Any]) -> tuple[float, ...]:
    from triton.testing import do_bench

    times = do_bench(function, warmup=30, rep=120, return_mode="all")
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return median / 1e3, low / 1e3, high / 1e3, len(times)


def assert_equal_to(expected: Sequence[Tensor], actual: Sequence[Tensor], *, border: int, atol: float) -> None:
    """Check an answer against float64 before its time counts; ``border`` pixels at each side are left out."""
    for one, other in zip(expected, actual, strict=True):
        if border and one.ndim == 4:
            one, other = (t[..., border:-border, border:-border] for t in (one, other))
        torch.testing.assert_close(other.cpu().double(), one.cpu().double(), rtol=1e-5, atol=atol)
