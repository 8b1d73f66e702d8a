"""Grids and arguments of the kernels. Tensors are on one CUDA device, or anywhere under Triton's interpreter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import wrap_triton

from bmrl._kernels import on_its_device
from bmrl.ops._triton.edges import edge_adjoint_kernel, edge_kernel
from bmrl.ops._triton.noise import noise_adjoint_kernel, noise_kernel
from bmrl.ops._triton.pixels import VECTOR, Tiling

__all__ = ["sobel", "sobel_backward", "srm", "srm_backward", "views", "views_backward"]

_ROWS = 8


def sobel(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Sobel magnitude ``(b, 1, h, w)`` in ``dtype``."""
    edge = images.new_empty(_planes(images, 1), dtype=dtype)
    _launch_edges(images, edge)
    return edge


def sobel_backward(gradient: Tensor, images: Tensor) -> Tensor:
    """Gradient of the images ``(b, c, h, w)`` from that of their Sobel magnitude."""
    parts = images.new_empty(_planes(images, 2), dtype=torch.float32)
    _launch_edges(images, parts, gradient=gradient.contiguous())
    return _launch_edge_adjoint(parts, None, images, images.dtype)


def srm(images: Tensor, truncation: float, dtype: torch.dtype) -> Tensor:
    """Clamped residuals ``(b, 3, h, w)`` in ``dtype``."""
    noise = images.new_empty(_planes(images, 3), dtype=dtype)
    _launch_noise(images, noise, truncation, *images.shape[-2:])
    return noise


def srm_backward(gradient: Tensor, images: Tensor, truncation: float) -> Tensor:
    """Gradient of the images ``(b, c, h, w)`` from that of their residuals."""
    flows = images.new_empty(_planes(images, 3), dtype=torch.float32)
    _launch_noise(images, flows, truncation, *images.shape[-2:], gradient=gradient.contiguous())
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    _launch_noise_adjoint(flows, result)
    return result


def views(
    images: Tensor, patch_size: int, truncation: float, dtype: torch.dtype, appearance: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Appearance (no elements unless asked for), edge, noise, and the index of the richest patch, in two launches."""
    batch, channels, height, width = images.shape
    planes = images.new_empty(_planes(images, channels) if appearance else (0,), dtype=dtype)
    edge = images.new_empty(_planes(images, 1), dtype=dtype)
    noise = images.new_empty((batch, 3, patch_size, patch_size), dtype=dtype)
    indices = images.new_empty((batch,), dtype=torch.int64)
    group = max(1, _columns(width) // patch_size)
    rows = Tiling(height, patch_size, _ROWS)
    columns = Tiling(width, patch_size * group, _columns(width))
    similarities = images.new_empty((batch, rows.count, columns.count, group), dtype=torch.int64)
    _launch_edges(
        images,
        edge,
        appearance=planes if appearance else None,
        selection=(similarities, patch_size, group, rows, columns),
    )
    _launch_noise(
        images,
        noise,
        truncation,
        patch_size,
        patch_size,
        indices=indices,
        selection=(similarities, group, rows, columns),
    )
    return planes, edge, noise, indices


def views_backward(
    appearance_gradient: Tensor | None,
    edge_gradient: Tensor,
    noise_gradient: Tensor,
    images: Tensor,
    indices: Tensor,
    patch_size: int,
    truncation: float,
) -> Tensor:
    """Gradient of the images ``(b, c, h, w)`` from those of their views."""
    parts = images.new_empty(_planes(images, 2), dtype=torch.float32)
    _launch_edges(images, parts, gradient=edge_gradient.contiguous())
    # Summed in float32, so that half precision rounds once.
    result = _launch_edge_adjoint(parts, appearance_gradient, images, torch.float32)
    flows = images.new_empty((images.shape[0], 3, patch_size, patch_size), dtype=torch.float32)
    _launch_noise(
        images, flows, truncation, patch_size, patch_size, indices=indices, gradient=noise_gradient.contiguous()
    )
    _launch_noise_adjoint(flows, result, indices)
    return result.to(images.dtype)


def _planes(images: Tensor, channels: int) -> tuple[int, int, int, int]:
    return images.shape[0], channels, images.shape[2], images.shape[3]


def _addressable(images: Tensor) -> Tensor:
    """The images, copied if the offsets within one row need more than 32 bits."""
    return images if (images.shape[3] - 1) * images.stride(3) < 2**31 else images.contiguous()


def _columns(width: int) -> int:
    """Pixels of a tile along x, four per thread: as many as one or two warps hold."""
    return 128 if width <= 128 else 256


def _aligned(*lengths: int) -> bool:
    """Whether four neighboring pixels can move as one."""
    return all(length % VECTOR.value == 0 for length in lengths)


@on_its_device
def _launch_edges(
    images: Tensor,
    edge: Tensor,
    *,
    gradient: Tensor | None = None,
    appearance: Tensor | None = None,
    selection: tuple[Tensor, int, int, Tiling, Tiling] | None = None,
) -> None:
    batch, channels, height, width = images.shape
    if batch == 0:
        return
    images = _addressable(images)
    if selection is None:
        similarities, patch_size, group = edge, width, 1
        rows, columns = Tiling(height, height, _ROWS), Tiling(width, width, _columns(width))
    else:
        similarities, patch_size, group, rows, columns = selection
    wrap_triton(edge_kernel)[(batch * rows.count * columns.count,)](
        images,
        edge if gradient is None else gradient,
        edge,
        edge if appearance is None else appearance,
        similarities,
        *images.stride(),
        height,
        width,
        patch_size,
        rows.count,
        columns.count,
        rows.per_unit,
        columns.per_unit,
        CHANNELS=channels,
        GROUP=group,
        ROWS=rows.tile,
        COLUMNS=columns.tile,
        ALIGNED=_aligned(width, patch_size),
        BACKWARD=gradient is not None,
        APPEARANCE=appearance is not None,
        SELECT=selection is not None,
        num_warps=columns.tile // 128,
    )


@on_its_device
def _launch_edge_adjoint(
    parts: Tensor, appearance_gradient: Tensor | None, images: Tensor, dtype: torch.dtype
) -> Tensor:
    batch, channels, height, width = images.shape
    result = images.new_empty(images.shape, dtype=dtype)
    rows, columns = Tiling(height, height, _ROWS), Tiling(width, width, _columns(width))
    if batch:
        wrap_triton(edge_adjoint_kernel)[(batch * rows.count * columns.count,)](
            parts,
            parts if appearance_gradient is None else appearance_gradient.contiguous(),
            result,
            height,
            width,
            rows.count,
            columns.count,
            CHANNELS=channels,
            ROWS=rows.tile,
            COLUMNS=columns.tile,
            ALIGNED=_aligned(width),
            APPEARANCE=appearance_gradient is not None,
            num_warps=columns.tile // 128,
        )
    return result


@on_its_device
def _launch_noise(
    images: Tensor,
    noise: Tensor,
    truncation: float,
    height: int,
    width: int,
    *,
    indices: Tensor | None = None,
    gradient: Tensor | None = None,
    selection: tuple[Tensor, int, Tiling, Tiling] | None = None,
) -> None:
    batch, channels = images.shape[:2]
    if noise.numel() == 0:
        return
    images = _addressable(images)
    rows, columns = Tiling(height, height, _ROWS), Tiling(width, width, _columns(width))
    patch_columns = images.shape[3] // width
    if selection is None:
        similarities, group, parts, edge_tiles, bands_per_patch, tiles_per_group = noise, 1, 1, 1, 1, 1
    else:
        similarities, group, edge_rows, edge_columns = selection
        parts, edge_tiles = similarities[0].numel(), edge_columns.count
        bands_per_patch, tiles_per_group = edge_rows.per_unit, edge_columns.per_unit
    wrap_triton(noise_kernel)[(batch * rows.count * columns.count,)](
        images,
        noise if gradient is None else gradient,
        similarities,
        noise,
        noise if indices is None else indices,
        *images.stride(),
        height,
        width,
        truncation,
        rows.count,
        columns.count,
        images.shape[2] // height * patch_columns,
        patch_columns,
        parts,
        edge_tiles,
        bands_per_patch,
        tiles_per_group,
        CHANNELS=channels,
        GROUP=group,
        ROWS=rows.tile,
        COLUMNS=columns.tile,
        ALIGNED=_aligned(width),
        BACKWARD=gradient is not None,
        RICHEST=selection is not None,
        GIVEN=selection is None and indices is not None,
        num_warps=columns.tile // 128,
    )


@on_its_device
def _launch_noise_adjoint(flows: Tensor, result: Tensor, indices: Tensor | None = None) -> None:
    batch, _, height, width = flows.shape
    if flows.numel() == 0:
        return
    rows, columns = Tiling(height, height, _ROWS), Tiling(width, width, _columns(width))
    wrap_triton(noise_adjoint_kernel)[(batch * rows.count * columns.count,)](
        flows,
        flows if indices is None else indices,
        result,
        *result.stride(),
        height,
        width,
        rows.count,
        columns.count,
        result.shape[3] // width,
        CHANNELS=result.shape[1],
        ROWS=rows.tile,
        COLUMNS=columns.tile,
        ALIGNED=_aligned(width),
        GIVEN=indices is not None,
        num_warps=columns.tile // 128,
    )
