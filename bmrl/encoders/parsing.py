"""The face-parsing encoder, and the colors in which it sees a parsing map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from bmrl._checks import check_dtype, check_floating, check_integer, check_shape
from bmrl.encoders.conv_transformer import ConvTransformer
from bmrl.errors import RangeError
from bmrl.parsing import PARSING_CLASSES, PARSING_COLORS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ParsingEncoder", "color_parsing"]


def color_parsing(parsing: Tensor, palette: Tensor | None = None) -> Tensor:
    """Return parsing maps as color images.

    Args:
        parsing: ``(batch, height, width)`` uint8 or int64, class indices 0..18.
        palette: ``(19, 3)`` colors in [0, 1]; None means :data:`PARSING_COLORS`.

    Returns:
        ``(batch, 3, height, width)`` RGB in [0, 1], in the palette's dtype (float32).

    Raises:
        ShapeError: not three axes, or a palette of another shape.
        DTypeError: neither uint8 nor int64, or a palette that is not floating point.
        RangeError: an index above 18 (checked on CPU tensors; a GPU is never made to wait, its lookup asserts).
    """
    check_shape("parsing", parsing, "batch height width")
    check_dtype("parsing", parsing, torch.uint8, torch.int64)
    if palette is None:
        palette = _palette(parsing.device)
    else:
        check_shape("palette", palette, "classes rgb", classes=len(PARSING_CLASSES), rgb=3)
        check_floating("palette", palette)
    tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined]
    if parsing.device.type == "cpu" and parsing.numel() and not tracing:
        low, high = int(parsing.min()), int(parsing.max())
        if low < 0 or high >= len(PARSING_CLASSES):
            raise RangeError(f"parsing: expected class indices 0..{len(PARSING_CLASSES) - 1}, got {low}..{high}")
    return rearrange(F.embedding(parsing.long(), palette), "b h w c -> b c h w")


def _palette(device: torch.device | str | None = None) -> Tensor:
    return torch.tensor(PARSING_COLORS, dtype=torch.float32, device=device) / 255


class ParsingEncoder(ConvTransformer):
    """The parsing encoder PE: class indices ``(batch, image_size, image_size)`` to ``(batch, embed_dim)``.

    Args:
        image_size: height and width of the parsing map in pixels.
        options: see :class:`~bmrl.encoders.ConvTransformer`.

    Source: arXiv:2504.14129, section 3.4; used in training only.
    """

    palette: Tensor

    def __init__(self, image_size: int = 224, **options: Any) -> None:
        check_integer("image_size", image_size, least=1)
        super().__init__(3, image_size, **options)
        # Not saved, so nothing would bring it back: never on the meta device, where it would hold no values.
        on_meta = torch.get_default_device().type == "meta"
        self.register_buffer("palette", _palette("cpu" if on_meta else None), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ParsingEncoder:
        """Move the encoder, and recompute the palette: ``to_empty`` leaves all buffers without their values."""
        super()._apply(fn, recurse)
        self.palette = _palette(self.palette.device).to(self.palette.dtype)
        return self

    def forward(self, parsing: Tensor) -> Tensor:
        """Return the parsing embedding P_g, not normalized.

        Args:
            parsing: ``(batch, image_size, image_size)`` uint8 or int64, class indices 0..18.

        Returns:
            ``(batch, embed_dim)``.

        Raises:
            ShapeError: another shape.
            DTypeError: neither uint8 nor int64.
            RangeError: an index above 18, on CPU tensors.
        """
        check_shape("parsing", parsing, "batch height width", height=self.input_size, width=self.input_size)
        palette = self.palette
        if palette.dtype != self.dtype or palette.device != parsing.device:  # weights that load_state_dict assigned
            palette = palette.to(parsing.device, self.dtype)
        return super().forward(color_parsing(parsing, palette))
