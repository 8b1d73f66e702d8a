"""The inference graph: the part of a model that every export format holds."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bmrl.encoders.backbone import ConvBackbone
from bmrl.encoders.statistics import StatisticsEncoder
from bmrl.inference.decider import decider_of
from bmrl.models.layout import to_channels_last

if TYPE_CHECKING:
    from bmrl.models import BMRL, View

_Module = TypeVar("_Module", bound=nn.Module)

__all__ = ["InferenceGraph"]


class InferenceGraph(nn.Module):
    """A model reduced to what a server runs: images in, probabilities, embedding and score out.

    It holds a copy of the model in evaluation mode and without gradients, its batch norms folded into the convolutions;
    the model that was given keeps its parameters, mode and device, no matter what is done to the graph.

    Args:
        model: the model to copy.
        dtype: of the weights and of what is computed with them. Operators of views still work in float32, and so
            do the encoder of statistics, the head, which decides between near classes, and the score; they cost next
            to nothing.
        device: where to put the copy.

    Raises:
        ConfigError: the configuration asks for a score that was not fitted.
    """

    def __init__(self, model: BMRL, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.decider = _copied(decider_of(model), device)
        self.model = _copied(model, device)
        self.model.parsing_encoder = self.model.language_encoder = self.model.predictor = None  # only for training
        for module in self.model.modules():
            if isinstance(module, ConvBackbone):
                module.layers = _folded(module.layers)  # before rounding, or each weight would be rounded twice
        self.model.to(dtype)
        if dtype != torch.float32:
            originals = model.visual_encoder.views.values()
            for view, original in zip(self.model.visual_encoder.views.values(), originals, strict=True):
                view.operator = _copied(cast("View", original).operator, device)
                if isinstance(view.encoder, StatisticsEncoder):  # statistics span more digits than a half has
                    kept = _copied(cast("View", original).encoder, device)
                    view.encoder = nn.Sequential(kept, _To(dtype))
            self.model.head = nn.Sequential(_To(torch.float32), _copied(model.head, device))
        to_channels_last(self)  # the same numbers, from faster convolutions on a CPU
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probabilities, embedding and score.

        Args:
            images: ``(batch, 3, image_size, image_size)``, uint8, RGB.

        Returns:
            ``(batch, num_generators)``, rows sum to 1; ``(batch, embed_dim)``; and ``(batch, 1)``, the score, higher is
            more like a seen image. All float32.
        """
        output = self.model(images)
        probabilities, score = self.decider(output.logits, output.embedding)
        return probabilities, output.embedding.float(), score[:, None]


def _copied(module: _Module, device: torch.device | str) -> _Module:
    """Return a copy in evaluation mode, without gradients, and without what ``torch.compile`` wraps."""
    copied = copy.deepcopy(module).to(device).eval()
    for parameter in copied.parameters():
        parameter.detach_()  # requires_grad_ refuses those of a copied ScriptModule, which are no leaves
    for part in list(copied.modules()):
        for name, child in part.named_children():
            if hasattr(child, "_orig_mod"):
                setattr(part, name, child._orig_mod)
    return copied


class _To(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, values: Tensor) -> Tensor:
        return values.to(self.dtype)


def _folded(layers: nn.Sequential) -> nn.Sequential:
    """Return layers that compute the same in evaluation mode, without batch norms."""
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and kept and isinstance(kept[-1], nn.Conv2d):
            kept[-1] = fuse_conv_bn_eval(kept[-1], layer)
        else:
            kept.append(layer)
    return nn.Sequential(*kept)
