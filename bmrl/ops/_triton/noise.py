"""SRM residuals of an image or of its richest patch, and their adjoint."""

from __future__ import annotations

import triton
import triton.language as tl

from bmrl.ops._triton.pixels import VECTOR, load_channels, wide_neighbors

__all__ = ["noise_adjoint_kernel", "noise_kernel"]


@triton.jit
def _richest(similarities, patches, patch_columns, tiles, bands_per_patch, tiles_per_group, GROUP: tl.constexpr):
    """Index of the patch with the smallest sum of similarities; one that is not a number (negative) wins."""
    CHUNK: tl.constexpr = 64
    best = tl.full((), 9223372036854775807, tl.int64)
    winner = tl.full((), 0, tl.int32)
    for first in range(0, patches, CHUNK):
        patch = first + tl.arange(0, CHUNK)
        mask = patch < patches
        patch_column = patch % patch_columns
        total = tl.zeros((CHUNK,), tl.int64)
        lowest = total
        for band in range(bands_per_patch):
            for tile in range(tiles_per_group):
                at = (patch // patch_columns * bands_per_patch + band) * tiles
                at = (at + patch_column // GROUP * tiles_per_group + tile) * GROUP + patch_column % GROUP
                part = tl.load(similarities + at, mask=mask, other=0)
                total += part
                lowest = tl.minimum(lowest, part)
        total = tl.where(lowest < 0, -1, total)
        total = tl.where(mask, total, 9223372036854775807)
        smallest = tl.min(total, axis=0)
        index = tl.argmin(total, axis=0, tie_break_left=True)
        winner = tl.where(smallest < best, first + index, winner)
        best = tl.minimum(smallest, best)
    return winner


@triton.jit
def _corner(image, patch, patch_columns, height, width, stride_y, stride_x):
    """Address of the top left pixel of a patch."""
    patch = patch.to(tl.int64)
    return image + patch // patch_columns * height * stride_y + patch % patch_columns * width * stride_x


@triton.jit
def _sum_channels(row, columns, width, stride_c, stride_x, CHANNELS: tl.constexpr):
    """Channel sum of pixels of a row as float32, zero beyond the border; a row of no ``width`` is all zero."""
    mask = (columns >= 0) & (columns < width)
    red, green, blue = load_channels(row, columns * stride_x, mask, stride_c, CHANNELS)
    return (red if CHANNELS == 1 else red + green + blue).to(tl.float32)


@triton.jit
def _second_differences(row, first, columns, width, stride_c, stride_x, CHANNELS: tl.constexpr):
    """D1 = [1 -2 1] and D2 = [1 0 -2 0 1] along one row of the channel sum."""
    middle = _sum_channels(row, columns, width, stride_c, stride_x, CHANNELS)
    two_before, before, after, two_after = wide_neighbors(
        middle,
        _sum_channels(row, first - 2, width, stride_c, stride_x, CHANNELS),
        _sum_channels(row, first - 1, width, stride_c, stride_x, CHANNELS),
        _sum_channels(row, first + VECTOR, width, stride_c, stride_x, CHANNELS),
        _sum_channels(row, first + (VECTOR + 1), width, stride_c, stride_x, CHANNELS),
    )
    return before - 2 * middle + after, two_before - 2 * middle + two_after


@triton.jit
def noise_kernel(
    images,
    gradient,
    similarities,
    noise,
    indices,
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    height,
    width,
    truncation,
    bands,
    tiles,
    patches,
    patch_columns,
    parts,
    edge_tiles,
    bands_per_patch,
    tiles_per_group,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BACKWARD: tl.constexpr,
    RICHEST: tl.constexpr,
    GIVEN: tl.constexpr,
):
    """One program: up to ROWS x COLUMNS residuals of one image, four neighbors per thread, row by row.

    ``height`` and ``width`` are those of the residuals, which are taken everywhere in the image; with RICHEST in the
    patch found from the similarities of ``edge_kernel``; with GIVEN in the patch of ``indices``. Writes the clamped
    residuals, or with BACKWARD the gradients that pass the clamp.
    """
    program = tl.program_id(0)
    tile = program % tiles
    band = (program // tiles) % bands
    image = (program // tiles // bands).to(tl.int64)
    if RICHEST:
        winner = _richest(
            similarities + image * parts, patches, patch_columns, edge_tiles, bands_per_patch, tiles_per_group, GROUP
        )
        if (tile == 0) & (band == 0):
            tl.store(indices + image, winner.to(tl.int64))
        base = _corner(images + image * stride_b, winner, patch_columns, height, width, stride_y, stride_x)
    elif GIVEN:
        winner = tl.load(indices + image)
        base = _corner(images + image * stride_b, winner, patch_columns, height, width, stride_y, stride_x)
    else:
        base = images + image * stride_b
    scale = 1 / 255 if images.dtype.element_ty == tl.uint8 else 1.0
    if ALIGNED:
        width = tl.multiple_of(tl.cast(width, tl.int32), VECTOR)
    THREADS: tl.constexpr = COLUMNS // VECTOR
    first = tile * COLUMNS + tl.arange(0, THREADS) * VECTOR
    columns = first[:, None] + tl.arange(0, VECTOR)[None, :]
    mask = columns < width
    plane = tl.cast(height, tl.int64) * width

    # Rows y - 2 to y + 1 of the two second differences; the loop reads row y + 2.
    first_a = tl.zeros((THREADS, VECTOR), tl.float32)
    first_b = first_a
    first_c = first_a
    first_d = first_a
    second_a = first_a
    second_b = first_a
    second_c = first_a
    second_d = first_a
    for step in range(-4, ROWS):
        y = band * ROWS + step
        filled = tl.where((y + 2 >= 0) & (y + 2 < height), width, 0)
        row = base + (y + 2).to(tl.int64) * stride_y
        first_e, second_e = _second_differences(row, first, columns, filled, stride_c, stride_x, CHANNELS)
        if (step >= 0) & (y < height):
            first_d1 = first_b - 2 * first_c + first_d
            first_d2 = first_a - 2 * first_c + first_e
            second_d1 = second_b - 2 * second_c + second_d
            second_d2 = second_a - 2 * second_c + second_e
            kb = first_d1 * (-scale / 4)
            kv = (2 * first_d2 - 6 * first_d1 + 2 * second_d1 - second_d2) * (scale / 12)
            h2 = first_c * (scale / 2)
            target = image * 3 * plane + y.to(tl.int64) * width + columns
            if BACKWARD:
                kb_flow = tl.load(gradient + target, mask=mask, other=0).to(tl.float32)
                kv_flow = tl.load(gradient + target + plane, mask=mask, other=0).to(tl.float32)
                h2_flow = tl.load(gradient + target + 2 * plane, mask=mask, other=0).to(tl.float32)
                tl.store(noise + target, tl.where(tl.abs(kb) <= truncation, kb_flow, 0.0), mask=mask)
                tl.store(noise + target + plane, tl.where(tl.abs(kv) <= truncation, kv_flow, 0.0), mask=mask)
                tl.store(noise + target + 2 * plane, tl.where(tl.abs(h2) <= truncation, h2_flow, 0.0), mask=mask)
            else:
                tl.store(noise + target, _clamped(kb, truncation), mask=mask)
                tl.store(noise + target + plane, _clamped(kv, truncation), mask=mask)
                tl.store(noise + target + 2 * plane, _clamped(h2, truncation), mask=mask)
        first_a = first_b
        first_b = first_c
        first_c = first_d
        first_d = first_e
        second_a = second_b
        second_b = second_c
        second_c = second_d
        second_d = second_e


@triton.jit
def _clamped(value, truncation):
    """Clamp to ±truncation; what is not a number stays so."""
    value = tl.maximum(value, -truncation, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(value, truncation, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def noise_adjoint_kernel(
    flows,
    indices,
    result,
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    height,
    width,
    bands,
    tiles,
    patch_columns,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    GIVEN: tl.constexpr,
):
    """Gradient of the image from those of the three residuals; each filter is symmetric and so its own adjoint.

    It is written everywhere, or with GIVEN added to the result at the patch of ``indices``.
    """
    program = tl.program_id(0)
    tile = program % tiles
    band = (program // tiles) % bands
    image = (program // tiles // bands).to(tl.int64)
    base = result + image * stride_b
    if GIVEN:
        base = _corner(base, tl.load(indices + image), patch_columns, height, width, stride_y, stride_x)
    if ALIGNED:
        width = tl.multiple_of(tl.cast(width, tl.int32), VECTOR)
    THREADS: tl.constexpr = COLUMNS // VECTOR
    first = tile * COLUMNS + tl.arange(0, THREADS) * VECTOR
    columns = first[:, None] + tl.arange(0, VECTOR)[None, :]
    mask = columns < width
    plane = tl.cast(height, tl.int64) * width

    # Rows y - 2 to y + 1 of what D1 and D2 take along the columns, and of the horizontal residual's part.
    first_a = tl.zeros((THREADS, VECTOR), tl.float32)
    first_b = first_a
    first_c = first_a
    first_d = first_a
    second_a = first_a
    second_b = first_a
    second_c = first_a
    second_d = first_a
    level_c = first_a
    level_d = first_a
    for step in range(-4, ROWS):
        y = band * ROWS + step
        filled = tl.where((y + 2 >= 0) & (y + 2 < height), width, 0)
        row = flows + image * 3 * plane + (y + 2).to(tl.int64) * width
        kb, _ = _second_differences(row, first, columns, filled, plane, 1, 1)
        kv, kv_wide = _second_differences(row + plane, first, columns, filled, plane, 1, 1)
        h2, _ = _second_differences(row + 2 * plane, first, columns, filled, plane, 1, 1)
        first_e = -kb / 4 - kv / 2 + kv_wide / 6
        second_e = kv / 6 - kv_wide / 12
        if (step >= 0) & (y < height):
            value = first_b - 2 * first_c + first_d + second_a - 2 * second_c + second_e + level_c / 2
            target = base + y.to(tl.int64) * stride_y + columns * stride_x
            for channel in tl.static_range(CHANNELS):
                at = target + channel * tl.cast(stride_c, tl.int64)
                if GIVEN:
                    tl.store(at, tl.load(at, mask=mask, other=0) + value, mask=mask)
                else:
                    tl.store(at, value, mask=mask)
        first_a = first_b
        first_b = first_c
        first_c = first_d
        first_d = first_e
        second_a = second_b
        second_b = second_c
        second_c = second_d
        second_d = second_e
        level_c = level_d
        level_d = h2
