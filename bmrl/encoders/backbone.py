"""The convolutional backbone shared by every image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from bmrl._checks import check_counts, check_floating, check_integer, check_shape
from bmrl._values import check_switch
from bmrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConvBackbone"]


class ConvBackbone(nn.Module):
    """Stages of [3 x 3 convolution, batch norm, ReLU] repeated, each closed by a 2 x 2 max pool.

    Args:
        in_channels: channels of the input.
        channels: output channels, one per stage.
        convs_per_stage: convolutions per stage.
        final_pool: whether the last stage pools too. The noise encoder leaves it out, so that its half-size
            patch gives a feature map as large as the other views'.

    Raises:
        DTypeError, RangeError: an argument has another type or is below one.
        ConfigError: ``channels`` and ``convs_per_stage`` are of different lengths, or empty.

    The defaults are the paper's: 224 px become a 512 x 7 x 7 map (arXiv:2504.14129, section 4.1; the stack of
    arXiv:2102.11126).
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        convs_per_stage: Sequence[int] = (3, 3, 3, 4, 4),
        final_pool: bool = True,
    ) -> None:
        super().__init__()
        check_integer("in_channels", in_channels, least=1)
        check_counts("channels", channels)
        check_counts("convs_per_stage", convs_per_stage)
        check_switch("final_pool", final_pool)
        if len(channels) != len(convs_per_stage) or not channels:
            raise ConfigError(
                f"convs_per_stage: expected one entry per stage of channels {tuple(channels)}, "
                f"got {tuple(convs_per_stage)}"
            )
        self.in_channels = in_channels
        self.out_channels = channels[-1]
        self.stride = 2 ** (len(channels) if final_pool else len(channels) - 1)
        layers: list[nn.Module] = []
        width = in_channels
        for stage, (stage_channels, num_convs) in enumerate(zip(channels, convs_per_stage, strict=True)):
            for _ in range(num_convs):
                # Batch norm follows and subtracts the mean: a bias would have no effect.
                layers += [
                    nn.Conv2d(width, stage_channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(stage_channels),
                    nn.ReLU(),
                ]
                width = stage_channels
            if final_pool or stage < len(channels) - 1:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map.

        Args:
            images: ``(batch, in_channels, height, width)``, floating point; sides at least :attr:`stride`.

        Returns:
            ``(batch, channels[-1], height // stride, width // stride)``, >= 0.

        Raises:
            ShapeError: not four axes, or another number of channels.
            DTypeError: not floating point.
        """
        check_shape("images", images, "batch channels height width", channels=self.in_channels)
        check_floating("images", images)
        features: Tensor = self.layers(images)
        return features
