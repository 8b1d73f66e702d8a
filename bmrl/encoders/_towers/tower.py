"""A pretrained network that takes images in [0, 1] of one size, and is trained in its own way or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrl._text import shown
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Tower"]


class Tower(nn.Module):
    """Resize, normalize, and run a network: ``(batch, 3, image_size, image_size)`` to a list of its features.

    Args:
        network: takes normalized images and returns a list of tensors ``(batch, channels, ...)``.
        constants: buffers of ``network`` that its state dict leaves out, by name, with their values.
        image_size: height and width of the images in pixels.
        network_size: the one size that the network takes; None if it takes images as they are.
        mean: of red, green and blue in [0, 1].
        std: their deviations.
        frozen: see :class:`~bmrl.encoders.PretrainedEncoder`.
        learning_rate_scale: see there.
    """

    mean: Tensor
    std: Tensor
    resampling: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        constants: dict[str, Tensor],
        image_size: int,
        network_size: int | None,
        mean: Sequence[float],
        std: Sequence[float],
        frozen: bool,
        learning_rate_scale: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.frozen = frozen
        self.learning_rate_scale = learning_rate_scale
        # Saved with the weights that they belong to: a later version of timm may list others by the same name.
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self._constants = {f"network.{name}": value.detach().clone() for name, value in constants.items()}
        resampling = None
        if network_size not in (None, image_size):
            resampling = _resampling(image_size, network_size)
            self._constants["resampling"] = resampling
        self.register_buffer("resampling", None if resampling is None else resampling.clone(), persistent=False)
        self._restore_constants()
        # Weights that were assigned may have another dtype, or be on another device.
        self.register_load_state_dict_post_hook(_restore)
        if frozen:
            network.requires_grad_(False)

    def train(self, mode: bool = True) -> Tower:
        """Set the mode; a frozen tower stays in evaluation mode, so that no batch changes its statistics."""
        return super().train(mode and not self.frozen)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tower:
        """Move the tower, and give the constants their values again: ``to_empty`` leaves all buffers without."""
        super()._apply(fn, recurse)
        self._restore_constants()
        return self

    def _restore_constants(self) -> None:
        """Give the buffers that are not saved their values, on the device of the mean, or on the CPU for none."""
        for name, value in self._constants.items():
            owner, _, buffer = name.rpartition(".")
            module = self.get_submodule(owner)
            device = "cpu" if self.mean.is_meta else self.mean.device
            dtype = self.mean.dtype if value.is_floating_point() else value.dtype
            module._buffers[buffer] = value.to(device, dtype, copy=True)

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.resampling is not None:
            images = self.resampling @ images @ self.resampling.mT
        images = (images - self.mean[:, None, None]) / self.std[:, None, None]
        features: list[Tensor] = self.network(images)
        return features


def _restore(tower: Tower, _: object) -> None:
    """What follows ``load_state_dict``; a function with a name can be pickled."""
    tower._restore_constants()


def _resampling(size: int, target: int) -> Tensor:
    """Return the matrix ``(target, size)`` that resamples a line of pixels: bicubic, antialiased.

    Two products with it are what ``F.interpolate`` does, in operators that every export format has.
    """
    identity = torch.eye(size, device="cpu", dtype=torch.float64)
    # The resampled height of the identity; its width stays as it is.
    resampled = F.interpolate(identity[None, None], (target, size), mode="bicubic", antialias=True)
    return resampled[0, 0].float()


def feature_shapes(network: nn.Module, size: int, name: str) -> list[tuple[int, ...]]:
    """Return the shapes of a network's features of one image of ``size`` pixels, without the batch.

    Raises:
        ConfigError: the network takes no such images.
    """
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    network.eval()
    try:
        with torch.no_grad():
            features = network(image)
    except RuntimeError as error:
        raise ConfigError(f"image_size: expected a size that {name!r} takes, got {size} ({shown(error)})") from error
    finally:
        network.train()
    return [tuple(each.shape[1:]) for each in features]
