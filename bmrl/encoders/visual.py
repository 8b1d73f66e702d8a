"""The visual encoders: appearance, edge, noise, and the three together."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bmrl._checks import check_choice, check_integer, check_positive, check_shape, check_switch
from bmrl._ranges import check_unit_range
from bmrl.encoders.conv_transformer import ConvTransformer
from bmrl.errors import ConfigError
from bmrl.ops import views

__all__ = ["AppearanceEncoder", "EdgeEncoder", "MultiPerspectiveVisualEncoder", "NoiseEncoder"]


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


class MultiPerspectiveVisualEncoder(nn.Module):
    r"""The multi-perspective visual encoder MPVE: one embedding from the three views of an image.

    The class tokens of the views are added, :math:`I_v = I_g^a + I_g^e + I_g^n`, or fused by attention.

    Args:
        image_size: height and width of the image in pixels.
        patch_size: side of the noise view; None means half of ``image_size``.
        noise_truncation: > 0, ``truncation`` of :func:`~bmrl.ops.srm`.
        appearance: whether the appearance encoder takes part.
        edge: whether the edge encoder takes part.
        noise: whether the noise encoder takes part.
        fusion: ``"sum"`` (the paper), or ``"cross_attention"``, where the appearance token queries the tokens of
            all views.
        embed_dim: width d of the embedding.
        num_heads: attention heads, a divisor of ``embed_dim``.
        options: see :class:`~bmrl.encoders.ConvTransformer`.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: no view takes part, cross-attention without the appearance view, or sizes that do not fit.

    Source: arXiv:2504.14129, section 3.3.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int | None = None,
        *,
        appearance: bool = True,
        edge: bool = True,
        noise: bool = True,
        noise_truncation: float = 3.0,
        fusion: Literal["sum", "cross_attention"] = "sum",
        embed_dim: int = 512,
        num_heads: int = 8,
        **options: Any,
    ) -> None:
        super().__init__()
        check_integer("image_size", image_size, least=2)
        if patch_size is None:
            patch_size = image_size // 2
        check_integer("patch_size", patch_size, least=2, most=image_size)
        for name, switch in (("appearance", appearance), ("edge", edge), ("noise", noise)):
            check_switch(name, switch)
        check_positive("noise_truncation", noise_truncation)
        check_choice("fusion", fusion, ("sum", "cross_attention"))
        if not (appearance or edge or noise):
            raise ConfigError("appearance, edge, noise: expected at least one True, got none")
        if fusion == "cross_attention" and not appearance:
            raise ConfigError("appearance: expected True with fusion 'cross_attention' (it is the query), got False")
        self.image_size = image_size
        self.patch_size = patch_size
        self.noise_truncation = noise_truncation
        options |= {"embed_dim": embed_dim, "num_heads": num_heads}
        self.appearance = AppearanceEncoder(image_size, **options) if appearance else None
        self.edge = EdgeEncoder(image_size, **options) if edge else None
        self.noise = NoiseEncoder(self.patch_size, **options) if noise else None
        self.attention = (
            nn.MultiheadAttention(embed_dim, num_heads, batch_first=True) if fusion == "cross_attention" else None
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the visual embedding I_v, not normalized.

        Args:
            images: ``(batch, 3, image_size, image_size)`` RGB, uint8 in 0..255 or floating point in [0, 1].

        Returns:
            ``(batch, embed_dim)`` in the parameters' dtype.

        Raises:
            ShapeError: another shape.
            DTypeError: neither uint8 nor floating point.
            RangeError: floating point images beyond -0.45..1.45, such as normalized ones (on the CPU, uncompiled).
        """
        size = self.image_size
        check_shape("images", images, "batch channels height width", channels=3, height=size, width=size)
        encoders = (self.appearance, self.edge, self.noise)
        dtype = next(encoder.dtype for encoder in encoders if encoder is not None)
        seen = views(images, patch_size=self.patch_size, truncation=self.noise_truncation, dtype=dtype)
        pairs = zip(encoders, seen, strict=True)
        embeddings = [encoder(view) for encoder, view in pairs if encoder is not None]
        if self.attention is None:
            return torch.stack(embeddings).sum(dim=0)
        tokens = torch.stack(embeddings, dim=1)
        query = tokens[:, :1]
        fused = query + self.attention(query, tokens, tokens, need_weights=False)[0]
        return fused[:, 0]
