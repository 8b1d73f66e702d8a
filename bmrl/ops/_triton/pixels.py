"""What all kernels share: reading pixels, mirrored borders, luma, gray levels, their similarity, and tiling."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "VECTOR",
    "Tiling",
    "gray_level",
    "load_channels",
    "load_pixels",
    "luma",
    "mirrored",
    "neighbors",
    "similarity",
    "tile_bounds",
    "wide_neighbors",
]

VECTOR = tl.constexpr(4)
"""Neighboring pixels of a row that one thread holds; a row of a tile has the shape (threads, 4)."""


@triton.jit
def mirrored(index, size):
    """Mirror indices -1 and ``size`` at the border without repeating the edge pixel (reflect-101)."""
    index = tl.abs(index)
    return tl.where(index < size, index, 2 * (size - 1) - index)


@triton.jit
def load_pixels(pointers, mask):
    """Load one channel: int32 of uint8 images, else float32; 0 outside the mask."""
    values = tl.load(pointers, mask=mask, other=0)
    return values.to(tl.int32 if values.dtype == tl.uint8 else tl.float32)


@triton.jit
def load_channels(row, offsets, mask, stride_c, CHANNELS: tl.constexpr):
    """Load the three channels (or one, three times) of pixels of a row."""
    red = load_pixels(row + offsets, mask)
    green = red
    blue = red
    if CHANNELS == 3:
        stride_c = tl.cast(stride_c, tl.int64)
        green = load_pixels(row + stride_c + offsets, mask)
        blue = load_pixels(row + 2 * stride_c + offsets, mask)
    return red, green, blue


@triton.jit
def _quarters(values):
    """The first, second, third and fourth pixels of all threads, ``(threads,)`` each."""
    even, odd = tl.split(tl.reshape(values, (values.shape[0], 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _row_of(first, second, third, fourth):
    """The inverse of :func:`_quarters`."""
    pairs = tl.join(tl.join(first, third), tl.join(second, fourth))
    return tl.reshape(pairs, (first.shape[0], 4))


@triton.jit
def neighbors(values, before, after):
    """The left and the right neighbor of each pixel, without leaving the thread.

    ``before`` and ``after`` ``(threads,)`` are the pixels next to the four that a thread holds.
    """
    first, second, third, fourth = _quarters(values)
    return _row_of(before, first, second, third), _row_of(second, third, fourth, after)


@triton.jit
def wide_neighbors(values, two_before, before, after, two_after):
    """As :func:`neighbors`, and the pixels two to the left and two to the right."""
    first, second, third, fourth = _quarters(values)
    return (
        _row_of(two_before, before, first, second),
        _row_of(before, first, second, third),
        _row_of(second, third, fourth, after),
        _row_of(third, fourth, after, two_after),
    )


@triton.jit
def luma(red, green, blue, CHANNELS: tl.constexpr):
    """Luma of BT.601, in the range of the channels."""
    return red.to(tl.float32) if CHANNELS == 1 else 0.299 * red + 0.587 * green + 0.114 * blue


@triton.jit
def gray_level(red, green, blue, CHANNELS: tl.constexpr):
    """Gray level 0..255, as ``gray_levels`` of ATen: int32 of uint8 images, else float32."""
    if red.dtype == tl.int32:
        level = red if CHANNELS == 1 else (299 * red + 587 * green + 114 * blue) // 1000
    else:
        level = tl.floor(255 * luma(red, green, blue, CHANNELS) + 0.0005)
    return level


@triton.jit
def similarity(difference):
    """Return round(2**24 / (1 + d**2)) of gray levels d apart (float32) as int64.

    If d is not a number, the result is so far below 0 that the sum of a tile is, too.
    """
    known = difference == difference
    # From here on the result is 0; images in range end at 255.
    difference = tl.minimum(tl.abs(difference), 5793.0)
    divisor = 1 + difference * difference
    quotient = (16777216.0 / divisor + 0.5).to(tl.int32)
    divisor = divisor.to(tl.int32)
    # Quick division errs by 2 units of the last place, 2 at most here; remainders mend it. A half never occurs.
    for _ in tl.static_range(2):
        remainder = 16777216 - quotient * divisor
        quotient += (2 * remainder > divisor).to(tl.int32) - (2 * remainder < -divisor).to(tl.int32)
    return tl.where(known, quotient.to(tl.int64), -(2**50))


@triton.jit
def tile_bounds(tile, unit, tiles_per_unit, size, TILE: tl.constexpr):
    """Return first and end index of a tile; units (patches) are cut into tiles, and no tile crosses a unit."""
    which = tile // tiles_per_unit
    first = which * unit + (tile % tiles_per_unit) * TILE
    return first, tl.minimum(tl.minimum(first + TILE, (which + 1) * unit), size)


class Tiling:
    """How an axis is cut: into units of ``unit`` pixels, and each of them into tiles of at most ``tile`` pixels."""

    def __init__(self, size: int, unit: int, tile: int) -> None:
        self.size, self.unit, self.tile = size, unit, tile
        self.per_unit = -(-unit // tile)
        self.count = size // unit * self.per_unit + -(-(size % unit) // tile)
