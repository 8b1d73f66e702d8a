"""The residual statistics as they are usually written, with NumPy and SciPy, one picture after the other."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

__all__ = ["statistics"]

FILTERS = {"first": ([-1, 1], 1), "second": ([1, -2, 1], 2), "third": ([-1, 3, -3, 1], 4)}


def statistics(images: Tensor) -> tuple[Tensor]:
    """Return what :func:`bmrl.ops.residual_statistics` does, ``(batch, 465)`` float64."""
    return (torch.from_numpy(np.stack([_of_one(image) for image in images.numpy()])),)


def _of_one(image: np.ndarray) -> np.ndarray:
    red, green, blue = image.astype(np.int32)
    luma = (299 * red + 587 * green + 114 * blue + 500) // 1000
    planes = (luma, red - luma, blue - luma)
    residuals = [(planes[0], kind) for kind in (*FILTERS, "square")]
    residuals += [(plane, kind) for plane in planes[1:] for kind in ("second", "square")]
    counted = [_counted(plane, kind) for plane, kind in residuals]
    return np.concatenate([*counted, _block_dct(luma), _rings(luma), _color(planes)])


def _filtered(plane: np.ndarray, kind: str) -> np.ndarray:
    """Along rows; of the square in both directions."""
    if kind == "square":
        lines = plane[:-2] - 2 * plane[1:-1] + plane[2:]
        return (lines[:, :-2] - 2 * lines[:, 1:-1] + lines[:, 2:]) / 8
    taps, step = FILTERS[kind]
    length = plane.shape[1] - len(taps) + 1
    return sum(tap * plane[:, start : start + length] for start, tap in enumerate(taps)) / step


@functools.cache
def _orbits() -> tuple[np.ndarray, int]:
    """Return the number of each triple of values -2 .. 2 by its code in base 5, and how many numbers there are."""
    numbers: dict[tuple[int, ...], int] = {}
    found = []
    for code in range(125):
        triple = (code // 25 - 2, code // 5 % 5 - 2, code % 5 - 2)
        negative = tuple(-value for value in triple)
        first = min(triple, triple[::-1], negative, negative[::-1])
        found.append(numbers.setdefault(first, len(numbers)))
    return np.array(found), len(numbers)


def _counted(plane: np.ndarray, kind: str) -> np.ndarray:
    orbit_of, count = _orbits()
    total = np.zeros(count)
    for turned in (plane, plane.T):
        values = np.clip(np.rint(_filtered(turned, kind)), -2, 2).astype(np.int64) + 2
        codes = 25 * values[:, :-2] + 5 * values[:, 1:-1] + values[:, 2:]
        total += np.bincount(orbit_of[codes].ravel(), minlength=count)
    return np.sqrt(total / total.sum())


def _windows(plane: np.ndarray, side: int) -> np.ndarray:
    return sliding_window_view(plane.astype(np.float64), (side, side))[::side, ::side].reshape(-1, side, side)


def _block_dct(luma: np.ndarray) -> np.ndarray:
    import scipy.fft

    sizes = np.abs(scipy.fft.dctn(_windows(luma, 8), axes=(1, 2), norm="ortho")).reshape(-1, 64)[:, 1:]
    return np.concatenate([np.log(sizes.mean(axis=0) + 0.01), (sizes < 9 / 16).mean(axis=0)])


def _rings(luma: np.ndarray) -> np.ndarray:
    parts = _windows(luma, 32)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(32) + 0.5) / 32)
    taper = np.outer(hann, hann)
    parts = (parts - parts.mean(axis=(1, 2), keepdims=True)) * taper
    power = (np.abs(np.fft.fft2(parts)) ** 2).mean(axis=0) / (taper**2).sum()
    line = np.fft.fftfreq(32) * 32
    radius = np.rint(np.hypot(line[:, None], line)).astype(int).ravel()
    means = np.bincount(radius, power.ravel()) / np.bincount(radius)
    return np.log(means[1:23] + 0.01)


def _color(planes: tuple[np.ndarray, ...]) -> np.ndarray:
    residuals = np.stack([_filtered(plane, "square").ravel() for plane in planes])
    correlations = np.corrcoef(residuals)
    deviations = np.log(residuals[1:].std(axis=1) + 0.01)
    return np.array([*deviations, correlations[0, 1], correlations[0, 2], correlations[1, 2]])
