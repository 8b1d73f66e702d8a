"""Sobel magnitude, with the appearance planes and the patch similarities from the same read; and its adjoint."""

from __future__ import annotations

import triton
import triton.language as tl

from bmrl.ops._triton.pixels import (
    VECTOR,
    gray_level,
    load_channels,
    load_pixels,
    luma,
    mirrored,
    neighbors,
    similarity,
    tile_bounds,
)

__all__ = ["edge_adjoint_kernel", "edge_kernel"]


@triton.jit
def _load_row(row, columns, mask, left, has_left, right, has_right, stride_c, stride_x, CHANNELS: tl.constexpr):
    """Channels of a row of a tile, and of the pixels next to those of each thread."""
    here = load_channels(row, columns * stride_x, mask, stride_c, CHANNELS)
    before = load_channels(row, left * stride_x, has_left, stride_c, CHANNELS)
    after = load_channels(row, right * stride_x, has_right, stride_c, CHANNELS)
    return here, before, after


@triton.jit
def _filter_row(here, before, after, scale, CHANNELS: tl.constexpr):
    """Smoothing [1 2 1] and difference [-1 0 1] along one row of luma."""
    middle = luma(here[0], here[1], here[2], CHANNELS) * scale
    left, right = neighbors(
        middle,
        luma(before[0], before[1], before[2], CHANNELS) * scale,
        luma(after[0], after[1], after[2], CHANNELS) * scale,
    )
    return left + 2 * middle + right, right - left


@triton.jit
def edge_kernel(
    images,
    gradient,
    edge,
    appearance,
    similarities,
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    height,
    width,
    patch_size,
    bands,
    tiles,
    bands_per_patch,
    tiles_per_group,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BACKWARD: tl.constexpr,
    APPEARANCE: tl.constexpr,
    SELECT: tl.constexpr,
):
    """One program: up to ROWS x COLUMNS pixels of one image, four neighbors per thread, row by row.

    Three rows of filtered luma stay in registers, so that a row is read once (and each border row of a band twice).
    ALIGNED promises that rows and tiles begin at multiples of four pixels.
    Writes the Sobel magnitude, or with BACKWARD the gradient of its two parts; with APPEARANCE the image in [0, 1];
    with SELECT the sum of similarities of its part of each of GROUP patches.
    """
    program = tl.program_id(0)
    tile = program % tiles
    band = (program // tiles) % bands
    image = (program // tiles // bands).to(tl.int64)
    if SELECT:
        top, bottom = tile_bounds(band, patch_size, bands_per_patch, height, ROWS)
        start, end = tile_bounds(tile, patch_size * GROUP, tiles_per_group, width, COLUMNS)
    else:
        top, bottom = tile_bounds(band, height, bands_per_patch, height, ROWS)
        start, end = tile_bounds(tile, width, tiles_per_group, width, COLUMNS)
    if ALIGNED:
        start = tl.multiple_of(start, VECTOR)
        end = tl.multiple_of(end, VECTOR)
    THREADS: tl.constexpr = COLUMNS // VECTOR
    first = start + tl.arange(0, THREADS) * VECTOR
    columns = first[:, None] + tl.arange(0, VECTOR)[None, :]
    mask = columns < end
    if ALIGNED:
        shown = columns
        readable = mask
    else:
        # The last thread may hold the right neighbor of the last pixel.
        shown = mirrored(columns, width)
        readable = columns <= end
    left = mirrored(first - 1, width)
    has_left = first < end
    right = mirrored(first + VECTOR, width)
    has_right = first + VECTOR - 1 < end
    plane = tl.cast(height, tl.int64) * width
    base = images + image * stride_b
    scale = 1 / 255 if images.dtype.element_ty == tl.uint8 else 1.0

    # An aligned patch holds all four pixels of a thread or none of them.
    total = tl.zeros((THREADS,) if ALIGNED else (THREADS, VECTOR), tl.int64)
    owner = (first if ALIGNED else columns) // patch_size
    apart = tl.zeros((THREADS, VECTOR), tl.float32)
    # Pairs of neighbors within one patch.
    paired = mask & ((columns + 1) % patch_size != 0) & (columns + 1 < width)

    row = base + mirrored(top - 1, height).to(tl.int64) * stride_y
    here, before, after = _load_row(
        row, shown, readable, left, has_left, right, has_right, stride_c, stride_x, CHANNELS
    )
    smooth_above, difference_above = _filter_row(here, before, after, scale, CHANNELS)
    smooth = smooth_above
    difference = difference_above
    for step in range(ROWS + 1):
        y = top + step
        if y <= bottom:
            row = base + mirrored(y, height).to(tl.int64) * stride_y
            here, before, after = _load_row(
                row, shown, readable, left, has_left, right, has_right, stride_c, stride_x, CHANNELS
            )
            smooth_below, difference_below = _filter_row(here, before, after, scale, CHANNELS)
            at = image * plane + y.to(tl.int64) * width
            if y < bottom:
                if APPEARANCE:
                    target = appearance + image * CHANNELS * plane + y.to(tl.int64) * width
                    for channel in tl.static_range(CHANNELS):
                        tl.store(target + channel * plane + columns, here[channel] * scale, mask=mask)
                if SELECT:
                    level = gray_level(here[0], here[1], here[2], CHANNELS)
                    beyond = gray_level(after[0], after[1], after[2], CHANNELS)
                    _, neighbor = neighbors(level, beyond, beyond)
                    apart = (level - neighbor).to(tl.float32)
            if step > 0:
                gx = difference_above + 2 * difference + difference_below
                gy = smooth_below - smooth_above
                magnitude = tl.sqrt(gx * gx + gy * gy)
                if BACKWARD:
                    flow = tl.load(gradient + at - width + columns, mask=mask, other=0).to(tl.float32)
                    flow = flow / tl.where(magnitude > 0, magnitude, float("inf"))
                    parts = edge + image * plane + at - width
                    tl.store(parts + columns, flow * gx, mask=mask)
                    tl.store(parts + plane + columns, flow * gy, mask=mask)
                else:
                    tl.store(edge + at - width + columns, magnitude, mask=mask)
            smooth_above = smooth
            difference_above = difference
            smooth = smooth_below
            difference = difference_below
            if SELECT:
                # Here, where few other values are alive.
                similar = tl.where(paired & (y < bottom), similarity(apart), 0)
                total += tl.sum(similar, axis=1) if ALIGNED else similar

    if SELECT:
        for index in range(GROUP):
            patch = owner == tile // tiles_per_group * GROUP + index
            amount = tl.sum(tl.where(patch, total, 0))
            tl.store(similarities + program.to(tl.int64) * GROUP + index, tl.maximum(amount, -1))


@triton.jit
def _with_neighbors(row, first, columns, width):
    """Left neighbors, values and right neighbors of a row, zero beyond the border."""
    values = load_pixels(row + columns, columns < width)
    left, right = neighbors(
        values,
        load_pixels(row + first - 1, (first >= 1) & (first <= width)),
        load_pixels(row + first + VECTOR, first + VECTOR < width),
    )
    return left, values, right


@triton.jit
def edge_adjoint_kernel(
    parts,
    appearance_gradient,
    result,
    height,
    width,
    bands,
    tiles,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    APPEARANCE: tl.constexpr,
):
    """Gradient of the image from those of the two Sobel parts, by the transposed filters.

    The mirrored border folds onto rows and columns 1 and size - 2, which weigh their outer neighbor twice
    (smoothing) or not at all (difference). With APPEARANCE the gradient of the appearance planes is added.
    """
    program = tl.program_id(0)
    tile = program % tiles
    band = (program // tiles) % bands
    image = (program // tiles // bands).to(tl.int64)
    if ALIGNED:
        width = tl.multiple_of(tl.cast(width, tl.int32), VECTOR)
    THREADS: tl.constexpr = COLUMNS // VECTOR
    first = tile * COLUMNS + tl.arange(0, THREADS) * VECTOR
    columns = first[:, None] + tl.arange(0, VECTOR)[None, :]
    mask = columns < width
    plane = tl.cast(height, tl.int64) * width
    base = parts + image * 2 * plane
    fold_before = (columns == 1).to(tl.float32)
    fold_after = (columns == width - 2).to(tl.float32)

    across_above = tl.zeros((THREADS, VECTOR), tl.float32)
    along_above = across_above
    across = across_above
    along = across_above
    for step in range(ROWS + 2):
        y = band * ROWS + step - 1
        filled = tl.where((y >= 0) & (y < height), width, 0)
        row = base + y.to(tl.int64) * width
        x_before, _, x_after = _with_neighbors(row, first, columns, filled)
        y_before, y_here, y_after = _with_neighbors(row + plane, first, columns, filled)
        across_below = (1 - fold_before) * x_before - (1 - fold_after) * x_after
        along_below = (1 + fold_before) * y_before + 2 * y_here + (1 + fold_after) * y_after
        target = y - 1
        if (step > 1) & (target < height):
            above = (target == 1).to(tl.float32)
            below = (target == height - 2).to(tl.float32)
            gray = (1 + above) * across_above + 2 * across + (1 + below) * across_below
            gray += (1 - above) * along_above - (1 - below) * along_below
            at = image * CHANNELS * plane + target.to(tl.int64) * width + columns
            for channel in tl.static_range(CHANNELS):
                weight = 1.0 if CHANNELS == 1 else (0.299 if channel == 0 else (0.587 if channel == 1 else 0.114))
                value = weight * gray
                if APPEARANCE:
                    value += tl.load(appearance_gradient + at + channel * plane, mask=mask, other=0).to(tl.float32)
                tl.store(result + at + channel * plane, value, mask=mask)
        across_above = across
        along_above = along
        across = across_below
        along = along_below
