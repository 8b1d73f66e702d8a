"""The learnable temperature of a contrastive loss, stored as ``log_scale = log(1 / temperature)``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bmrl.errors import RangeError
from bmrl.losses._arguments import check_finite_positive

MAX_SCALE = 100


def log_scale_parameter(temperature: float) -> nn.Parameter:
    """The parameter that starts at ``log(1 / temperature)``: ``(1,)``, because FSDP refuses scalars."""
    check_finite_positive("temperature", temperature)
    if temperature < 1 / MAX_SCALE:
        raise RangeError(f"temperature: expected >= {1 / MAX_SCALE} (1 / temperature is bounded), got {temperature}")
    return nn.Parameter(torch.tensor([-math.log(temperature)]))


def bounded_temperature(log_scale: Tensor) -> Tensor:
    """The temperature, at least ``1 / MAX_SCALE``: a scalar, float32 at least.

    CLIP (Radford et al. 2021) clips the parameter after each step. A plain ``clamp`` in the forward pass would differ:
    once past the bound its gradient is 0 for good. Here the gradient at the bound is dropped only where a descent
    step would go further out, so the parameter can always come back, and nothing is changed in place.
    """
    bounded: Tensor = _BoundScale.apply(log_scale.to(torch.promote_types(log_scale.dtype, torch.float32)))
    return torch.exp(-bounded).squeeze()


class _BoundScale(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(log_scale: Tensor) -> Tensor:
        return log_scale.clamp(max=math.log(MAX_SCALE))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (log_scale,) = ctx.saved_tensors
        outward = (log_scale >= math.log(MAX_SCALE)) & (grad < 0)
        return torch.where(outward, 0.0, grad)
