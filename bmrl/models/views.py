"""Views of an image: an operator that makes it, and an encoder that reads it."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from bmrl._checks import check_images, check_integer, check_positive
from bmrl._values import described
from bmrl.encoders import AppearanceEncoder, EdgeEncoder, NoiseEncoder
from bmrl.errors import DTypeError
from bmrl.ops import Sobel, richest_patch, srm
from bmrl.ops.patches import all_patches

__all__ = ["PatchResiduals", "Pixels", "Residuals", "View", "dtype_of", "paper_views", "unit_images"]


class View(nn.Module):
    """A view of an image: what is made of the pixels, and the encoder that reads it.

    Args:
        operator: maps ``(batch, 3, size, size)`` RGB images, floating point in [0, 1], to any tensor.
        encoder: maps what the operator returns to ``(batch, embed_dim)``.

    Raises:
        DTypeError: one of the two is not a module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> view = View(Sobel(), nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 8)))
        >>> view(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape
        torch.Size([2, 8])
    """

    operator: nn.Module
    encoder: nn.Module

    def __init__(self, operator: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        for name, part in (("operator", operator), ("encoder", encoder)):
            if not isinstance(part, nn.Module):
                raise DTypeError(f"{name}: expected a torch.nn.Module, got {described(part)}")
        self.operator = operator
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding of the view.

        Args:
            images: ``(batch, 3, size, size)`` RGB, uint8 in 0..255 or floating point in [0, 1].

        Returns:
            ``(batch, embed_dim)``.
        """
        return self.embed(self.seen(unit_images(images)))

    def embed(self, values: Tensor) -> Tensor:
        """Return the embedding ``(batch, embed_dim)`` of what :meth:`seen` returned; of several patches, their mean."""
        if not isinstance(self.operator, PatchResiduals):
            embeddings: Tensor = self.encoder(values)
            return embeddings
        num_patches = values.shape[1]
        each: Tensor = self.encoder(values.flatten(0, 1))
        return each.unflatten(0, (-1, num_patches)).mean(dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """Return what the encoder reads of floating point images: made in their precision, passed on in the encoder's.

        An operator that has tensors, such as a learned filter, computes in their precision.
        """
        result: Tensor = self.operator(images.to(dtype_of(self.operator) or images.dtype))
        dtype = dtype_of(self.encoder)
        return result.to(dtype) if dtype is not None and result.is_floating_point() else result


class Pixels(nn.Module):
    """The operator of the appearance view: the image itself, in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(batch, channels, height, width)`` in [0, 1], of uint8 in 0..255 or of floating point in [0, 1]."""
        return unit_images(images)


class Residuals(nn.Module):
    """The operator of the noise view: :func:`~bmrl.ops.srm` of the :func:`~bmrl.ops.richest_patch`.

    Args:
        patch_size: height and width p of the patch in pixels.
        truncation: > 0, as in :func:`~bmrl.ops.srm`.

    Raises:
        DTypeError, RangeError: an argument has another type or is out of its range.

    Source: arXiv:2504.14129, section 3.3.
    """

    def __init__(self, patch_size: int = 112, truncation: float = 3.0) -> None:
        super().__init__()
        check_integer("patch_size", patch_size, least=2)
        check_positive("truncation", truncation)
        self.patch_size = patch_size
        self.truncation = float(truncation)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(batch, 3, p, p)`` of ``(batch, 3, height, width)``, uint8 or floating point in [0, 1]."""
        return srm(richest_patch(unit_images(images), patch_size=self.patch_size)[0], truncation=self.truncation)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"patch_size={self.patch_size}, truncation={self.truncation}"


class PatchResiduals(Residuals):
    """The operator of the noise view with all patches: :func:`~bmrl.ops.srm` of each, side by side from the upper left.

    A :class:`View` with it averages the embeddings of the patches.

    Arguments and errors as of :class:`Residuals`.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(batch, patches, 3, p, p)`` of ``(batch, 3, height, width)``, uint8 or floating point in [0, 1]."""
        patches = all_patches(unit_images(images), patch_size=self.patch_size)
        return srm(patches.flatten(0, 1), truncation=self.truncation).unflatten(0, (-1, patches.shape[1]))


def paper_views(
    image_size: int = 224, *, patch_size: int | None = None, truncation: float = 3.0, **options: Any
) -> dict[str, View]:
    """Return the paper's three views with freshly initialized encoders: appearance, edge and noise.

    Args:
        image_size: height and width of the image in pixels.
        patch_size: of the noise view; None means half of ``image_size``.
        truncation: of the noise view, > 0.
        options: see :class:`~bmrl.encoders.ConvTransformer`.

    Source: arXiv:2504.14129, section 3.3.
    """
    check_integer("image_size", image_size, least=2)
    patch_size = image_size // 2 if patch_size is None else patch_size
    return {
        "appearance": View(Pixels(), AppearanceEncoder(image_size, **options)),
        "edge": View(Sobel(), EdgeEncoder(image_size, **options)),
        "noise": View(Residuals(patch_size, truncation), NoiseEncoder(patch_size, **options)),
    }


def unit_images(images: Tensor) -> Tensor:
    """Return images in [0, 1] in at least float32: uint8 is divided by 255, floats are taken as they are."""
    check_images("images", images)
    if images.dtype == torch.uint8:
        return images.float() / 255
    return images.to(torch.promote_types(images.dtype, torch.float32))


def dtype_of(module: nn.Module) -> torch.dtype | None:
    """Return the floating-point dtype that a module computes in; None if it holds no such values."""
    dtype = getattr(module, "dtype", None)
    if isinstance(dtype, torch.dtype):
        return dtype
    replicated = (vars(part).get("_former_parameters", {}).values() for part in module.modules())  # of nn.DataParallel
    tensors = chain(module.parameters(), chain.from_iterable(replicated), module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
