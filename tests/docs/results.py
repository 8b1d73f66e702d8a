"""The committed result files, and which row of each holds what."""

from __future__ import annotations

import functools
import json
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@functools.cache
def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def only(rows, **wanted):
    """Return the one row that has these values."""
    (found,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return found


def spread(ratio):
    """Return a ratio as it is written in a formatted text: median, low and high."""
    return ratio["median"], ratio["low"], ratio["high"]


def operator(name, provider, batch=32):
    """Return images per second, and the ratio to conv2d or, for the selector, to scikit-image."""
    rows = read("operators_cpu")["measurements"]
    row = only(rows, operator=name, provider=provider, batch=batch)
    if "speedup_over_conv2d" in row:
        return row["images_per_s"], *spread(row["speedup_over_conv2d"])
    plain = only(rows, operator=name, provider="scikit-image", batch=batch)
    ratios = (
        plain["median_s"] / row["median_s"],
        plain["low_s"] / row["high_s"],
        plain["high_s"] / row["low_s"],
    )
    return row["images_per_s"], *ratios


def loss(name, provider, batch):
    return only(read("losses_cpu")["measurements"], loss=name, provider=provider, batch=batch)


def encoder(name, provider, batch=8):
    return only(read("encoders_cpu")["measurements"], encoder=name, provider=provider, batch=batch)


def exported(name, *, engine=None, kept, batch=8):
    """Return images per second and the ratio to eager: median, low, high."""
    table = "with freed memory kept" if kept else "as a process comes"
    row = only(read("exports_cpu")["measurements"][table], format=name, engine=engine)
    speed = row["speed"][str(batch)]
    return speed["images_per_second"], *speed["relative"]


def eager(*, kept, batch=8):
    """Return images per second of the model in PyTorch, next to which the formats were measured."""
    speed, ratio, *_ = exported("torchscript", kept=kept, batch=batch)
    return speed / ratio


def served(preset, form):
    return only(read("serving_cpu")["measurements"], preset=preset, format=form)


def study(data, variant):
    """Return the runs of one variant of the DFACC study."""
    return [run for run in read(f"dfacc_study_{data}")["runs"] if run["variant"] == variant]


def mean_and_range(values, digits):
    """Return the words for some values: their mean, and the least and largest."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
