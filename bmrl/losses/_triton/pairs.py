"""Pair term of the DFACC loss (eq. 6-7): weights of all pairs, and the differences that they weigh.

Both kernels hold a tile of ``(PER_THREAD, WARPS, COLUMNS)`` sums in registers: a thread has PER_THREAD neighbors along
one axis, the same for its whole warp, and four along the other, and nothing passes through shared memory in the loops.
The compiler finds that layout where the loads of a step have fewer elements than the program has threads, and where the
tile begins as a load of its shape. Triton 3.8 then loads 16 or 8 bytes at a time; 3.6 loads PER_THREAD neighbors one
by one.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["COLUMNS", "WARPS", "pair_weights_kernel", "weighted_differences_kernel"]

WARPS = tl.constexpr(8)
"""Warps of a program."""
COLUMNS = tl.constexpr(128)
"""Width of a tile: four neighbors for each thread of a warp."""


@triton.jit
def _tall_side(tile, PER_THREAD: tl.constexpr):
    """Indices ``(PER_THREAD, WARPS)`` of the tall side of a tile, neighbors in one thread."""
    within = tl.arange(0, WARPS)[None, :] * PER_THREAD + tl.arange(0, PER_THREAD)[:, None]
    return tile * (WARPS * PER_THREAD) + within


@triton.jit
def pair_weights_kernel(
    transposed,
    labels,
    related,
    weights,
    partials,
    margin,
    batch,
    steps,
    stride,
    first,
    count,
    num_generators,
    PER_THREAD: tl.constexpr,
    UNROLL: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    """Sum of L_uv over the pairs u < v of a tile; with GRADIENT the derivative of L_uv by d, over d, of each.

    ``transposed`` (steps + 1, stride) holds embeddings as columns; beyond the batch and in row ``steps`` it is 0.
    Writes row v of ``weights`` (stride, count) for the ``count`` points u from ``first`` on: 0 where labels are equal
    or v lies beyond the batch. Per pair and step the loop has an addition and a fused multiply-add.
    """
    v = _tall_side(tl.program_id(0), PER_THREAD)
    u = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    stride = tl.cast(stride, tl.int64)
    columns = transposed + first
    shape: tl.constexpr = (PER_THREAD, WARPS, COLUMNS)
    # Zeros, but loaded: the layout of this load becomes that of the sums (see above).
    squares = tl.load(columns + steps * stride + tl.broadcast_to(u[None, None, :], shape))
    if not GRADIENT:
        # Half of the tiles hold no pair u < v.
        highest = (tl.program_id(0) + 1) * (WARPS * PER_THREAD) - 1
        steps = tl.where(highest > first + tl.program_id(1) * COLUMNS, steps, 0)
    row = tl.cast(0, tl.int64)
    for _ in range(0, steps, UNROLL):
        for _ in tl.static_range(UNROLL):
            difference = tl.load(transposed + row + v)[:, :, None] - tl.load(columns + row + u)[None, None, :]
            squares += difference * difference
            row += stride
    # Correctly rounded, so that a distance meets the margin here where it does in exact arithmetic.
    distances = tl.sqrt_rn(squares)

    v_label = tl.load(labels + v, mask=v < batch, other=0)[:, :, None]
    u_label = tl.load(labels + first + u, mask=first + u < batch, other=0)[None, None, :]
    v_index = v[:, :, None]
    u_index = (first + u)[None, None, :]
    # A point u beyond the batch comes after all v there, and its gradient is never read: it needs no mask.
    pair = (v_index < batch) & (v_label != u_label)
    pulled = tl.load(related + u_label * num_generators + v_label, mask=pair, other=0) != 0
    # Comparisons such that NaN passes.
    values = tl.where(pulled, tl.where(distances <= margin, 0.0, distances - margin), -distances)
    partial = tl.sum(tl.where(pair & (u_index < v_index), values, 0.0))
    tl.store(partials + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), partial)
    if GRADIENT:
        slopes = tl.where(pulled, tl.where(distances > margin, 1.0, 0.0), -1.0)
        slopes = slopes / tl.where(distances == 0, float("inf"), distances)
        tl.store(weights + v_index.to(tl.int64) * count + u[None, None, :], tl.where(pair, slopes, 0.0))


@triton.jit
def weighted_differences_kernel(
    points, weights, parts, end, share, stride, first, count, PER_THREAD: tl.constexpr, UNROLL: tl.constexpr
):
    """The gradient of ``count`` points u from ``first`` on: the sum of w_uv (y_u - y_v) over a share of the points v.

    ``points`` (rows, stride), ``weights`` (rows, count), ``parts`` (shares, count, stride); rows are padded so that no
    load needs a mask, and ``end`` is where they end that may have weights, rounded up to steps of the loop.
    Differences rather than y_u * sum(w) - w @ y: of near-duplicates that would leave rounding errors alone.
    """
    u = _tall_side(tl.program_id(0), PER_THREAD)
    k = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    stride = tl.cast(stride, tl.int64)
    count = tl.cast(count, tl.int64)
    rows = (u * stride)[:, :, None] + k[None, None, :]
    own = tl.load(points + first * stride + rows)
    sums = tl.zeros((PER_THREAD, WARPS, COLUMNS), tl.float32)
    start = tl.program_id(2) * share
    point = start * stride
    weight = start * count
    for _ in range(start, tl.minimum(start + share, end), UNROLL):
        for _ in tl.static_range(UNROLL):
            w = tl.load(weights + weight + u)
            sums += w[:, :, None] * (own - tl.load(points + point + k)[None, None, :])
            point += stride
            weight += count
    tl.store(parts + tl.program_id(2) * count * stride + rows, sums)
