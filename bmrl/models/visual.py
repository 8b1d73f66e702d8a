"""The multi-perspective visual encoder: one embedding of all views of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from bmrl._checks import check_integer, check_shape
from bmrl._ranges import check_unit_range
from bmrl._values import check_choice, described
from bmrl.errors import ConfigError, DTypeError
from bmrl.models.views import Pixels, Residuals, View, dtype_of, unit_images
from bmrl.ops import Sobel, views

__all__ = ["MultiPerspectiveVisualEncoder"]


class MultiPerspectiveVisualEncoder(nn.Module):
    r"""The multi-perspective visual encoder MPVE: one embedding from several views of an image.

    The embeddings of the views are added, :math:`I_v = I_g^a + I_g^e + I_g^n`, or joined by a layer of their own.

    Args:
        views: one or more by name; ``appearance`` is the query of ``"cross_attention"``. The paper's three operators
            (:class:`~bmrl.models.views.Pixels`, :class:`~bmrl.ops.Sobel`, :class:`~bmrl.models.views.Residuals`) are
            computed in one fused pass, no matter which views they belong to.
        image_size: height and width of the image in pixels.
        fusion: ``"sum"`` (the paper); ``"concat"``, a linear projection of all embeddings side by side, each after a
            layer norm, so that no view drowns another; or ``"cross_attention"``, where the appearance embedding queries
            those of all views.
        embed_dim: width d of the embeddings.
        num_heads: attention heads of the cross-attention, a divisor of ``embed_dim``.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.
        ConfigError: no view, or cross-attention without the appearance view.

    Source: arXiv:2504.14129, section 3.3.

    Example:
        >>> from bmrl.models import paper_views
        >>> sizes = {"channels": (4, 8), "convs_per_stage": (1, 1), "num_blocks": 1, "embed_dim": 16, "mlp_dim": 16}
        >>> encoder = MultiPerspectiveVisualEncoder(paper_views(32, **sizes), image_size=32, embed_dim=16)
        >>> encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        views: Mapping[str, View],
        *,
        image_size: int = 224,
        fusion: Literal["sum", "concat", "cross_attention"] = "sum",
        embed_dim: int = 512,
        num_heads: int = 8,
    ) -> None:
        super().__init__()
        check_integer("image_size", image_size, least=2)
        check_choice("fusion", fusion, ("sum", "concat", "cross_attention"))
        if not isinstance(views, Mapping):
            raise DTypeError(f"views: expected views by name, got {described(views)}")
        for name, view in views.items():
            if not isinstance(view, View):
                raise DTypeError(f"views.{name}: expected a bmrl.models.View, got {described(view)}")
        if not views:
            raise ConfigError("views: expected at least one, got none")
        if fusion == "cross_attention" and "appearance" not in views:
            raise ConfigError(f"views: expected appearance, the query of cross_attention, got {', '.join(views)}")
        self.image_size = image_size
        self.views = nn.ModuleDict(dict(views))
        self.attention = (
            nn.MultiheadAttention(embed_dim, num_heads, batch_first=True) if fusion == "cross_attention" else None
        )
        self.joint = JointProjection(len(views), embed_dim) if fusion == "concat" else None

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
        parts = {name: cast("View", view) for name, view in self.views.items()}
        seen = _seen(list(parts.values()), images, size)
        embeddings = [view.embed(values) for view, values in zip(parts.values(), seen, strict=True)]
        if self.joint is not None:
            joined: Tensor = self.joint(embeddings)
            return joined
        if self.attention is None:
            return torch.stack(embeddings).sum(dim=0)
        tokens = torch.stack(embeddings, dim=1)
        place = list(parts).index("appearance")
        query = tokens[:, place : place + 1]
        fused = query + self.attention(query, tokens, tokens, need_weights=False)[0]
        return fused[:, 0]


class JointProjection(nn.Module):
    """One linear projection of several embeddings side by side, each after a layer norm.

    Args:
        num_views: how many embeddings.
        embed_dim: width of each, and of the result.
    """

    def __init__(self, num_views: int, embed_dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(num_views))
        self.projection = nn.Linear(num_views * embed_dim, embed_dim)

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        """Return ``(batch, embed_dim)`` of as many ``(batch, embed_dim)`` as there are views."""
        normalized = [norm(each) for norm, each in zip(self.norms, embeddings, strict=True)]
        projected: Tensor = self.projection(torch.cat(normalized, dim=-1))
        return projected


def _seen(parts: list[View], images: Tensor, image_size: int) -> list[Tensor]:
    """Return what each view's encoder reads; the paper's operators in one pass."""
    operators = [view.operator for view in parts]
    first = next((operator for operator in operators if type(operator) is Residuals), None)
    shown: dict[type, Tensor] = {}
    if first is not None or Sobel in map(type, operators):
        standard = [view for view in parts if type(view.operator) in (Pixels, Sobel, Residuals)]
        dtypes = (dtype_of(view.encoder) for view in standard)
        patch_size = image_size // 2 if first is None else first.patch_size  # a trace would record a shape
        truncation = 3.0 if first is None else first.truncation
        dtype = next((dtype for dtype in dtypes if dtype is not None), torch.get_default_dtype())
        fused = views(images, patch_size=patch_size, truncation=truncation, dtype=dtype)
        shown = {Pixels: fused.appearance, Sobel: fused.edge, Residuals: fused.noise}
    else:
        check_unit_range("images", images)
    return [
        shown[type(view.operator)] if _shares(view, first, shown) else view.seen(unit_images(images)) for view in parts
    ]


def _shares(view: View, first: Residuals | None, shown: dict[type, Tensor]) -> bool:
    """Whether a view reads what the fused pass returned: of the same settings, in the same precision."""
    kind = type(view.operator)
    if kind not in shown or (kind is Residuals and view.operator is not first):
        return False
    return dtype_of(view.encoder) in (None, shown[kind].dtype)
