"""Image towers of open_clip, cut to the stages that an encoder reads."""

from __future__ import annotations

import contextlib
import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bmrl._extras import require
from bmrl.encoders._towers.parts import TowerParts, building, unknown_name
from bmrl.encoders._towers.weights import fit, read_tensors

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

__all__ = ["open_clip_parts"]

_NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
"""The text tower is thrown away: a tiny one takes no time."""


def open_clip_parts(
    name: str, stages: Sequence[int] | None, pooling: str, weights: str | os.PathLike[str] | None
) -> TowerParts:
    """Return an image tower of open_clip; the arguments are those of :class:`~bmrl.encoders.PretrainedEncoder`."""
    require("open_clip")
    open_clip: Any = importlib.import_module("open_clip")
    if name not in open_clip.list_models():
        raise unknown_name(name, open_clip.list_models(), "open_clip")
    device = torch.get_default_device()
    with building(name, stages), _without_warnings():
        tower = open_clip.create_model(name, pretrained=None, device=device, text_cfg=_NO_TEXT).visual
    tower.to(torch.get_default_dtype())
    if weights is not None and device.type != "meta":
        _fill(tower, weights)
    size = tower.image_size
    taken: list[int] | int | None = list(stages) if stages is not None else 1 if pooling == "tokens" else 3
    with building(name, stages):
        network = _OpenClipFeatures(tower, None if pooling == "output" else taken)
    mean, std = _pixels(open_clip, name, listed=weights is not None)
    return TowerParts(network=network, mean=mean, std=std, image_size=size if isinstance(size, int) else size[0])


def _pixels(open_clip: Any, name: str, *, listed: bool) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and the deviation that all weights of an architecture have."""
    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    found = {(tuple(tag["mean"]), tuple(tag["std"])) for tag in tags}
    if not found or not listed:
        return tuple(open_clip.OPENAI_DATASET_MEAN), tuple(open_clip.OPENAI_DATASET_STD)
    return found.pop() if len(found) == 1 else (None, None)


def _fill(tower: nn.Module, weights: str | os.PathLike[str]) -> None:
    tensors = read_tensors(Path(weights))
    if any(name.startswith("visual.") for name in tensors):  # of both towers
        tensors = {name.removeprefix("visual."): each for name, each in tensors.items() if name.startswith("visual.")}
    known = {name: tensor.shape for name, tensor in tower.state_dict().items()}
    fit(tower, tensors, known=known, origin=str(weights))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep what open_clip tells the root logger, that a model without weights has none, out of the log."""
    root = logging.getLogger()
    root.addFilter(_no_record)
    try:
        yield
    finally:
        root.removeFilter(_no_record)


def _no_record(record: logging.LogRecord) -> bool:
    return not record.pathname.endswith(("open_clip/factory.py", "open_clip\\factory.py"))


class _OpenClipFeatures(nn.Module):
    """The maps of an image tower after some of its blocks; or its embedding."""

    def __init__(self, tower: nn.Module, stages: list[int] | int | None) -> None:
        super().__init__()
        self.tower = tower
        self.stages = None if stages is None else _pruned(tower, stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.stages is None:
            return [self.tower(images)]
        found: Any = self.tower.forward_intermediates(  # type: ignore[operator]
            images, indices=list(self.stages), intermediates_only=True
        )
        return list(found["image_intermediates"])


def _pruned(tower: Any, stages: list[int] | int) -> tuple[int, ...]:
    """Remove what comes after the last stage, which no gradient would reach; return the numbers of the stages."""
    part = getattr(tower, "trunk", tower)  # of timm, in some architectures
    if hasattr(part, "prune_intermediate_layers"):
        numbers = part.prune_intermediate_layers(stages, prune_norm=True, prune_head=True)
    else:  # CLIP's residual networks: a stem and four layers
        numbers = list(range(5))[-stages:] if isinstance(stages, int) else stages
        part.attnpool = nn.Identity()
        for number in range(max(numbers) + 1, 5):
            setattr(part, f"layer{number}", nn.Identity())
    if part is not tower:
        tower.head = nn.Identity()
    return tuple(numbers)
