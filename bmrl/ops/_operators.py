"""The operators as registered PyTorch operators, whose bodies are Triton kernels on a GPU and ATen elsewhere.

Imported when a CUDA tensor arrives: the kernels bring in Triton. The public functions are the way to call them.
A backward pass runs with gradients enabled only if it will be differentiated again; then it takes the ATen form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bmrl.ops._aten.edges import sobel, sobel_adjoint
from bmrl.ops._aten.noise import srm, srm_adjoint
from bmrl.ops._aten.view_extraction import views, views_adjoint
from bmrl.ops._dispatch import runs_kernels
from bmrl.ops._triton import launch

__all__ = ["sobel_op", "srm_op", "views_op"]


@torch.library.triton_op("bmrl::sobel", mutates_args=())
def sobel_op(images: Tensor, dtype: torch.dtype) -> Tensor:
    if runs_kernels(images):
        return launch.sobel(images, dtype)
    return sobel(images, dtype)


@torch.library.triton_op("bmrl::sobel_backward", mutates_args=())
def _sobel_backward_op(gradient: Tensor, images: Tensor) -> Tensor:
    if runs_kernels(images):
        return launch.sobel_backward(gradient, images)
    return sobel_adjoint(gradient, images)


def _save_sobel(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _backward_sobel(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (images,) = ctx.saved_tensors
    adjoint = sobel_adjoint if torch.is_grad_enabled() else torch.ops.bmrl.sobel_backward
    return adjoint(gradient, images), None


sobel_op.register_autograd(_backward_sobel, setup_context=_save_sobel)


@torch.library.triton_op("bmrl::srm", mutates_args=())
def srm_op(images: Tensor, truncation: float, dtype: torch.dtype) -> Tensor:
    if runs_kernels(images):
        return launch.srm(images, truncation, dtype)
    return srm(images, truncation, dtype)


@torch.library.triton_op("bmrl::srm_backward", mutates_args=())
def _srm_backward_op(gradient: Tensor, images: Tensor, truncation: float) -> Tensor:
    if runs_kernels(images):
        return launch.srm_backward(gradient, images, truncation)
    return srm_adjoint(gradient, images, truncation)


def _save_srm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, ctx.truncation, _ = inputs
    ctx.save_for_backward(images)


def _backward_srm(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    (images,) = ctx.saved_tensors
    adjoint = srm_adjoint if torch.is_grad_enabled() else torch.ops.bmrl.srm_backward
    return adjoint(gradient, images, ctx.truncation), None, None


srm_op.register_autograd(_backward_srm, setup_context=_save_srm)


@torch.library.triton_op("bmrl::views", mutates_args=())
def views_op(
    images: Tensor, patch_size: int, truncation: float, dtype: torch.dtype, appearance: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if runs_kernels(images):
        return launch.views(images, patch_size, truncation, dtype, appearance)
    seen, edge, noise, indices = views(images, patch_size, truncation, dtype)
    if not appearance:
        seen = seen.new_empty((0,))
    elif seen is images:  # an operator's result is never its argument
        seen = seen.clone()
    return seen, edge, noise, indices


@torch.library.triton_op("bmrl::views_backward", mutates_args=())
def _views_backward_op(
    appearance_gradient: Tensor | None,
    edge_gradient: Tensor,
    noise_gradient: Tensor,
    images: Tensor,
    indices: Tensor,
    patch_size: int,
    truncation: float,
) -> Tensor:
    arguments = (appearance_gradient, edge_gradient, noise_gradient, images, indices, patch_size, truncation)
    if runs_kernels(images):
        return launch.views_backward(*arguments)
    return views_adjoint(*arguments)


def _save_views(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, ctx.patch_size, ctx.truncation, _, ctx.appearance = inputs
    ctx.save_for_backward(images, output[3])


def _backward_views(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    images, indices = ctx.saved_tensors
    adjoint = views_adjoint if torch.is_grad_enabled() else torch.ops.bmrl.views_backward
    appearance, edge, noise, _ = gradients
    result = adjoint(
        appearance if ctx.appearance else None, edge, noise, images, indices, ctx.patch_size, ctx.truncation
    )
    return result, None, None, None, None


views_op.register_autograd(_backward_views, setup_context=_save_views)
