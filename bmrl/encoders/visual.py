"""The visual encoders of the paper's three views: appearance, edge and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmrl._checks import check_integer, check_shape
from bmrl._ranges import check_unit_range
from bmrl.encoders.conv_transformer import ConvTransformer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AppearanceEncoder", "EdgeEncoder", "NoiseEncoder"]


class AppearanceEncoder(ConvTransformer):
    """The appearance encoder AE: ``(batch, 3, image_size, image_size)`` in [0, 1] to ``(batch, embed_dim)``.

    Args:
        image_size: height and width of the image in pixels.
        options: see :class:`~bmrl.encoders.ConvTransformer`.

    Source: arXiv:2504.14129, section 3.3. Alone, with a linear head, it is CViT (arXiv:2102.11126).
    """

    def __init__(self, image_size: int = 224, **options: Any) -> None:
        check_integer("image_size", image_size, least=1)
        super().__init__(3, image_size, **options)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class token, ``(batch, embed_dim)``, of ``(batch, 3, image_size, image_size)``.

        Raises:
            ShapeError: another shape.
            DTypeError: not floating point.
            RangeError: values beyond -0.45..1.45, such as those of normalized images (on the CPU, uncompiled).
        """
        check_shape("images", images, "batch channels height width")
        check_unit_range("images", images)
        return super().forward(images)


class EdgeEncoder(ConvTransformer):
    """The edge encoder EE: ``(batch, 1, image_size, image_size)`` of :func:`~bmrl.ops.sobel` to ``(batch, embed_dim)``.

    Args:
        image_size: height and width of the edge image in pixels.
        options: see :class:`~bmrl.encoders.ConvTransformer`.

    Source: arXiv:2504.14129, section 3.3.
    """

    def __init__(self, image_size: int = 224, **options: Any) -> None:
        check_integer("image_size", image_size, least=1)
        super().__init__(1, image_size, **options)


class NoiseEncoder(ConvTransformer):
    """The noise encoder NE: ``(batch, 3, patch_size, patch_size)`` of :func:`~bmrl.ops.srm` to ``(batch, embed_dim)``.

    Its backbone drops the last pool, so that a patch of half the image's size gives an equally large feature map.

    Args:
        patch_size: height and width of the noise image in pixels.
        options: see :class:`~bmrl.encoders.ConvTransformer`.

    Source: arXiv:2504.14129, section 3.3.
    """

    def __init__(self, patch_size: int = 112, **options: Any) -> None:
        check_integer("patch_size", patch_size, least=1)
        super().__init__(3, patch_size, **({"final_pool": False} | options))
