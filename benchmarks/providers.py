"""The operators as other libraries offer them, and the plain convolutions that one would write first.

A provider maps uint8 images to the tensors that the operator returns; all are checked against float64.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import numba_loops, numpy_statistics
from bmrl import ops
from bmrl.ops._aten import edges, noise, view_extraction

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OPERATORS", "Operator", "Provider"]

PATCH = 112
SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
SRM = torch.zeros(3, 5, 5)
SRM[0, 1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
SRM[1, :3] = torch.tensor([[-1.0, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2]]) / 12
SRM[1, 3:] = SRM[1, :2].flip(0)
SRM[2, 2, 1:4] = torch.tensor([1.0, -2, 1]) / 2


@dataclass(frozen=True)
class Provider:
    """One way to compute an operator."""

    run: Callable[[Tensor], tuple[Tensor, ...]]
    largest_batch: int = 1024
    border: int = 0
    """Pixels at each side where it follows another convention."""
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True)
class Operator:
    """What is computed, on which images, and by whom."""

    side: int
    output_bytes: int
    """Bytes of the outputs per image."""
    exact: Callable[[Tensor], tuple[Tensor, ...]]
    """The answer, from uint8 images on the CPU, in float64 where it is not whole."""
    providers: dict[str, Provider]
    atol: float = 2e-5
    """Largest difference from the answer."""

    def images(self, batch: int, device: str, *, seed: int = 0) -> Tensor:
        """Random images, brighter to the right, so that patches differ."""
        random = torch.Generator().manual_seed(seed)
        noise = torch.randint(0, 128, (min(batch, 64), 3, self.side, self.side), dtype=torch.uint8, generator=random)
        noise += torch.linspace(0, 127, self.side).to(torch.uint8)
        return noise.repeat(-(-batch // len(noise)), 1, 1, 1)[:batch].contiguous().to(device)

    def bytes(self, batch: int) -> int:
        """What must move at least."""
        return batch * (3 * self.side**2 + self.output_bytes)


def _gray(images: Tensor) -> Tensor:
    scaled = images.float() / 255
    return 0.299 * scaled[:, 0:1] + 0.587 * scaled[:, 1:2] + 0.114 * scaled[:, 2:3]


def _conv_sobel(images: Tensor) -> tuple[Tensor]:
    kernels = torch.stack((SOBEL, SOBEL.T))[:, None].to(images.device)
    parts = F.conv2d(F.pad(_gray(images), (1, 1, 1, 1), mode="reflect"), kernels)
    return (parts.square().sum(dim=1, keepdim=True).sqrt(),)


def _conv_srm(images: Tensor) -> tuple[Tensor]:
    total = (images.float() / 255).sum(dim=1, keepdim=True)
    return (F.conv2d(total, SRM[:, None].to(images.device), padding=2).clamp(-3, 3),)


def _plain_selector(images: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form of the homogeneity without further thought."""
    red, green, blue = images.int().unbind(dim=1)
    levels = (299 * red + 587 * green + 114 * blue) // 1000
    patches = levels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(1, 2).float()
    homogeneity = (1 / (1 + (patches[..., 1:] - patches[..., :-1]) ** 2)).double().mean(dim=(-2, -1))
    return _crop(images, homogeneity.argmin(dim=1))


def _crop(images: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(2, 3)
    return patches[torch.arange(len(images), device=images.device), :, indices], indices


def _conv_views(images: Tensor) -> tuple[Tensor, ...]:
    return images.float() / 255, *_conv_sobel(images), *_conv_srm(_plain_selector(images)[0])


def _opencv_sobel(images: Tensor) -> tuple[Tensor]:
    import cv2

    result = np.empty((len(images), 1, *images.shape[-2:]), np.float32)
    for image, target in zip(images.numpy(), result, strict=True):
        gray = np.tensordot(np.float32([0.299, 0.587, 0.114]) / 255, image.astype(np.float32), axes=1)
        gx, gy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
        cv2.magnitude(gx, gy, target[0])
    return (torch.from_numpy(result),)


def _opencv_srm(images: Tensor) -> tuple[Tensor]:
    import cv2

    result = np.empty((len(images), 3, *images.shape[-2:]), np.float32)
    for image, targets in zip(images.numpy(), result, strict=True):
        total = image.sum(axis=0, dtype=np.float32) / np.float32(255)
        for kernel, target in zip(SRM.numpy(), targets, strict=True):
            cv2.filter2D(total, cv2.CV_32F, kernel, target, borderType=cv2.BORDER_CONSTANT)
    return (torch.from_numpy(result.clip(-3, 3, out=result)),)


def _skimage_selector(images: Tensor) -> tuple[Tensor, Tensor]:
    """A co-occurrence matrix of each patch, as the selector is usually written."""
    from skimage.feature import graycomatrix, graycoprops

    pixels = images.numpy().astype(np.int32)
    levels = ((299 * pixels[:, 0] + 587 * pixels[:, 1] + 114 * pixels[:, 2]) // 1000).astype(np.uint8)
    side = images.shape[-1] // PATCH
    values = [
        [
            graycoprops(graycomatrix(patch, [1], [0], 256, symmetric=True, normed=True), "homogeneity")[0, 0]
            for row in np.split(image, side, axis=0)
            for patch in np.split(row, side, axis=1)
        ]
        for image in levels
    ]
    return _crop(images, torch.tensor(values).argmin(dim=1))


def _opencv_views(images: Tensor) -> tuple[Tensor, ...]:
    patches, _ = _skimage_selector(images)
    return images.float() / 255, *_opencv_sobel(images), *_opencv_srm(patches)


def _kornia_sobel(images: Tensor) -> tuple[Tensor]:
    import kornia

    parts = kornia.filters.spatial_gradient(_gray(images), mode="sobel", normalized=False)
    return (parts.square().sum(dim=2).sqrt(),)


def _kornia_srm(images: Tensor) -> tuple[Tensor]:
    import kornia

    total = (images.float() / 255).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    # One kernel per call: kornia applies the same kernels to every channel.
    kernels = SRM.to(images.device)
    parts = [kornia.filters.filter2d(total[:, :1], kernel[None], border_type="constant") for kernel in kernels]
    return (torch.cat(parts, dim=1).clamp(-3, 3),)


def _kornia_views(images: Tensor) -> tuple[Tensor, ...]:
    return images.float() / 255, *_kornia_sobel(images), *_kornia_srm(_plain_selector(images)[0])


@functools.cache
def _compiled(function: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return torch.compile(function, fullgraph=True, dynamic=True)


def _bmrl_sobel(images: Tensor) -> tuple[Tensor]:
    return (ops.sobel(images),)


def _bmrl_srm(images: Tensor) -> tuple[Tensor]:
    return (ops.srm(images),)


def _bmrl_selector(images: Tensor) -> tuple[Tensor, Tensor]:
    return ops.richest_patch(images, patch_size=PATCH)


def _bmrl_views(images: Tensor) -> tuple[Tensor, ...]:
    return tuple(ops.views(images, patch_size=PATCH))


def _bmrl_statistics(images: Tensor) -> tuple[Tensor]:
    return (ops.residual_statistics(images),)


def _ours(
    function: Callable[[Tensor], tuple[Tensor, ...]], in_aten: Callable[[Tensor], tuple[Tensor, ...]]
) -> dict[str, Provider]:
    """The operator eager and compiled; on a GPU also without its kernels."""
    return {
        "bmrl": Provider(function),
        "bmrl compiled": Provider(lambda images: _compiled(function)(images)),
        "ATen eager": Provider(in_aten, devices=("cuda",)),
        "ATen compiled": Provider(lambda images: _compiled(in_aten)(images), devices=("cuda",)),
    }


_CPU = ("cpu",)

OPERATORS = {
    "sobel": Operator(
        224,
        4 * 224**2,
        lambda images: (ops.sobel(images.double() / 255),),
        _ours(_bmrl_sobel, lambda images: (edges.sobel(images, torch.float32),))
        | {
            "conv2d": Provider(_conv_sobel),
            "kornia": Provider(_kornia_sobel, border=1),
            "OpenCV": Provider(_opencv_sobel, devices=_CPU),
            "numba": Provider(numba_loops.sobel, devices=_CPU),
        },
    ),
    "srm": Operator(
        PATCH,
        3 * 4 * PATCH**2,
        lambda images: (ops.srm(images.double() / 255),),
        _ours(_bmrl_srm, lambda images: (noise.srm(images, 3.0, torch.float32),))
        | {
            "conv2d": Provider(_conv_srm),
            "kornia": Provider(_kornia_srm),
            "OpenCV": Provider(_opencv_srm, devices=_CPU),
            "numba": Provider(lambda images: numba_loops.srm(images, PATCH), devices=_CPU),
        },
    ),
    "selector": Operator(
        224,
        3 * PATCH**2 + 8,
        _skimage_selector,
        _ours(_bmrl_selector, _bmrl_selector)
        | {
            "plain": Provider(_plain_selector),
            "scikit-image": Provider(_skimage_selector, largest_batch=32, devices=_CPU),
            "numba": Provider(lambda images: _crop(images, numba_loops.richest_index(images, PATCH)), devices=_CPU),
        },
    ),
    "views": Operator(
        224,
        4 * (4 * 224**2 + 3 * PATCH**2),
        lambda images: (
            images.double() / 255,
            ops.sobel(images.double() / 255),
            ops.srm(_skimage_selector(images)[0].double() / 255),
        ),
        _ours(_bmrl_views, lambda images: view_extraction.views(images, PATCH, 3.0, torch.float32)[:3])
        | {
            "conv2d": Provider(_conv_views),
            "kornia": Provider(_kornia_views, border=1),
            "OpenCV, scikit-image": Provider(_opencv_views, largest_batch=32, devices=_CPU),
            "numba": Provider(lambda images: numba_loops.views(images, PATCH), devices=_CPU),
        },
    ),
    "statistics": Operator(
        224,
        4 * ops.NUM_STATISTICS,
        numpy_statistics.statistics,
        {
            "bmrl": Provider(_bmrl_statistics),
            "bmrl compiled": Provider(lambda images: _compiled(_bmrl_statistics)(images)),
            "NumPy, SciPy": Provider(numpy_statistics.statistics, largest_batch=32, devices=_CPU),
        },
        atol=2e-4,  # of logarithms of sums in float32
    ),
}
