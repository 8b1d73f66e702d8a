"""The Triton kernels against OpenCV, scikit-image and float64: on a GPU, or through Triton's interpreter."""

from __future__ import annotations

import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import graycomatrix, graycoprops
from torch import Tensor

from bmrl.ops import _operators, edges, noise, richest_patch, sobel, srm, view_extraction, views
from bmrl.ops._triton.pixels import similarity

pytestmark = pytest.mark.slow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.uint8, torch.float32, torch.float16, torch.bfloat16)
# Aligned; nothing aligned and a remainder next to the patches; the smallest; two warps wide; a patch of two tiles.
SIZES = [(12, 16, 8), (9, 13, 4), (2, 2, 2), (6, 140, 6), (5, 261, 5)]
TRUNCATION = 0.3123  # which no residual of whole gray levels meets
SRM_KERNELS = (
    np.array([[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]]) / 4,
    np.array([[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]) / 12,
    np.array([[0] * 5, [0] * 5, [0, 1, -2, 1, 0], [0] * 5, [0] * 5]) / 2,
)


@triton.jit
def similarity_kernel(differences, result, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(result + at, similarity(tl.load(differences + at)))


@pytest.fixture(autouse=True)
def run_kernels(monkeypatch):
    """Send every image that kernels take to them, on any device."""
    for module in (edges, noise, view_extraction, _operators):
        monkeypatch.setattr(module, "runs_kernels", lambda images: images.dtype in DTYPES)
    if DEVICE == "cpu":  # older versions of PyTorch do not wrap interpreted kernels
        monkeypatch.setattr("bmrl.ops._triton.launch.wrap_triton", lambda kernel: kernel)


def random_images(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return (images if dtype == torch.uint8 else (images.float() / 255).to(dtype)).to(DEVICE)


def in_float64(images: Tensor) -> np.ndarray:
    scaled = images.cpu().double() / 255 if images.dtype == torch.uint8 else images.cpu().double()
    return scaled.numpy()


def sobel_of_opencv(images: Tensor) -> Tensor:
    result = []
    for image in in_float64(images):
        gray = image[0] if len(image) == 1 else 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        result.append(np.hypot(cv2.Sobel(gray, cv2.CV_64F, 1, 0), cv2.Sobel(gray, cv2.CV_64F, 0, 1)))
    return torch.from_numpy(np.stack(result)[:, None])


def srm_of_opencv(images: Tensor, truncation: float) -> Tensor:
    result = []
    for image in in_float64(images):
        total = np.ascontiguousarray(image.sum(axis=0))
        residuals = [cv2.filter2D(total, -1, kernel, borderType=cv2.BORDER_CONSTANT) for kernel in SRM_KERNELS]
        result.append(np.stack(residuals).clip(-truncation, truncation))
    return torch.from_numpy(np.stack(result))


def homogeneity_of_scikit_image(images: Tensor, patch_size: int) -> np.ndarray:
    pixels = images.cpu().numpy().astype(np.int64)
    levels = pixels[:, 0] if pixels.shape[1] == 1 else np.einsum("bchw,c->bhw", pixels, [299, 587, 114]) // 1000
    rows, columns = levels.shape[1] // patch_size, levels.shape[2] // patch_size
    result = np.zeros((len(levels), rows * columns))
    for image, patch in np.ndindex(result.shape):
        y, x = patch // columns * patch_size, patch % columns * patch_size
        part = levels[image, y : y + patch_size, x : x + patch_size].astype(np.uint8)
        matrix = graycomatrix(part, [1], [0], levels=256, symmetric=True, normed=True)
        result[image, patch] = graycoprops(matrix, "homogeneity")[0, 0]
    return result


def crop(images: Tensor, indices: Tensor, patch_size: int) -> Tensor:
    columns = images.shape[3] // patch_size
    corners = [(index // columns * patch_size, index % columns * patch_size) for index in indices.tolist()]
    return torch.stack(
        [image[:, y : y + patch_size, x : x + patch_size] for image, (y, x) in zip(images, corners, strict=True)]
    )


def assert_close(actual: Tensor, expected: Tensor, atol: float = 5e-6) -> None:
    # Half precision is rounded once, to the nearest; the interpreter cuts bfloat16 off instead: up to one unit.
    cut_off = actual.dtype == torch.bfloat16 and DEVICE == "cpu"
    rtol = max(torch.finfo(actual.dtype).eps * (1 if cut_off else 0.5), 2e-6)
    torch.testing.assert_close(actual.cpu().double(), expected.cpu().double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_operators_equal_opencv(dtype, channels, size):
    images = random_images(2, channels, *size[:2], dtype=dtype)
    assert_close(sobel(images), sobel_of_opencv(images))
    assert_close(srm(images, truncation=TRUNCATION), srm_of_opencv(images, TRUNCATION))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_equal_opencv_and_the_selector(dtype, channels, size):
    images = random_images(2, channels, *size[:2], dtype=dtype)
    patch_size = size[2]
    appearance, edge, residuals, indices = torch.ops.bmrl.views(images, patch_size, TRUNCATION, torch.float32, True)
    assert torch.equal(indices.cpu(), richest_patch(images.cpu(), patch_size=patch_size)[1])
    assert_close(appearance, torch.from_numpy(in_float64(images)))
    assert_close(edge, sobel_of_opencv(images))
    assert_close(residuals, srm_of_opencv(crop(images, indices, patch_size), TRUNCATION))


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("patch_size", [2, 3, 6])
def test_selects_what_scikit_image_calls_least_homogeneous(patch_size, channels):
    images = random_images(3, channels, 7, 18, dtype=torch.uint8)
    images[:, :, :, 6:12] //= 16
    indices = torch.ops.bmrl.views(images, patch_size, 3.0, torch.float32, False)[3]
    homogeneity = homogeneity_of_scikit_image(images, patch_size)
    for row, index in zip(homogeneity, indices.tolist(), strict=True):
        assert row[index] <= row.min() + 2**-24  # terms are rounded to multiples of this


@settings(max_examples=8)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_any_size(height, width, patch_size, channels, seed):
    patch_size = min(patch_size, height, width)
    images = random_images(1, channels, height, width, dtype=torch.uint8, seed=seed)
    _, edge, residuals, indices = torch.ops.bmrl.views(images, patch_size, 3.0, torch.float32, False)
    assert torch.equal(indices.cpu(), richest_patch(images.cpu(), patch_size=patch_size)[1])
    assert_close(edge, sobel_of_opencv(images))
    assert_close(residuals, srm_of_opencv(crop(images, indices, patch_size), 3.0))


@pytest.mark.parametrize("result", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_have_the_asked_dtype(dtype, result):
    images = random_images(1, 3, 4, 8, dtype=dtype)
    seen = views(images, patch_size=4, truncation=TRUNCATION, dtype=result)
    assert {view.dtype for view in seen} == {result}
    assert_close(seen.appearance, torch.from_numpy(in_float64(images)))
    assert_close(seen.edge, sobel_of_opencv(images))
    index = richest_patch(images.cpu(), patch_size=4)[1]
    assert_close(seen.noise, srm_of_opencv(crop(images, index, 4), TRUNCATION))


def test_images_that_are_the_appearance_view_are_not_copied():
    images = random_images(1, 3, 4, 4, dtype=torch.float32)
    assert views(images, patch_size=2).appearance is images


def test_layouts(laid_out):
    images = laid_out.to(DEVICE)
    if not len(images):
        seen = views(images, patch_size=5)
        assert [tuple(view.shape) for view in seen] == [(0, 3, 12, 10), (0, 1, 12, 10), (0, 3, 5, 5)]
        assert sobel(images).shape == (0, 1, 12, 10)
        assert srm(images).shape == (0, 3, 12, 10)
        return
    assert_close(sobel(images), sobel_of_opencv(images))
    assert_close(srm(images), srm_of_opencv(images, 3.0))
    _, edge, residuals, indices = torch.ops.bmrl.views(images, 5, 3.0, torch.float32, False)
    assert torch.equal(indices.cpu(), richest_patch(laid_out, patch_size=5)[1])
    assert_close(edge, sobel_of_opencv(images))
    assert_close(residuals, srm_of_opencv(crop(images, indices, 5), 3.0))


def test_similarity_is_the_nearest_whole_number():
    differences = torch.arange(8192, dtype=torch.float32, device=DEVICE)
    result = torch.empty(8192, dtype=torch.int64, device=DEVICE)
    similarity_kernel[(1,)](differences, result, SIZE=8192)
    assert result.tolist() == [round(Fraction(2**24, 1 + d**2)) for d in range(8192)]


def test_a_tie_goes_to_the_lowest_index():
    quarter = random_images(1, 3, 8, 8, dtype=torch.uint8)
    half = torch.cat((quarter, quarter.flip(-1)), dim=-1)
    indices = torch.ops.bmrl.views(torch.cat((half, half.flip(-2)), dim=-2), 8, 3.0, torch.float32, False)[3]
    assert indices.tolist() == [0]


def test_many_patches():
    images = random_images(1, 1, 18, 18, dtype=torch.uint8)  # 81 patches: more than are compared at once
    images[..., 14:16, 16:18] = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8)
    images[..., :14, :] = 7
    assert torch.ops.bmrl.views(images, 2, 3.0, torch.float32, False)[3].tolist() == [7 * 9 + 8]


def test_not_a_number_stays_near_its_pixel_and_its_patch_is_chosen():
    images = random_images(1, 3, 12, 16, dtype=torch.float32)
    images[0, 1, 2, 10] = math.nan
    _, edge, residuals, indices = torch.ops.bmrl.views(images, 4, 3.0, torch.float32, False)
    assert indices.tolist() == richest_patch(images.cpu(), patch_size=4)[1].tolist() == [2]
    assert torch.equal(edge.isnan().nonzero().cpu(), sobel(images.cpu().double()).isnan().nonzero())
    assert torch.equal(residuals.isnan().nonzero().cpu(), srm(images[..., :4, 8:12].cpu().double()).isnan().nonzero())


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (1, 3, 0, 5), (1, 3, 5, 0)])
def test_nothing_has_no_noise(shape):
    images = torch.zeros(shape, device=DEVICE, requires_grad=True)
    result = srm(images)
    assert result.shape == shape
    result.sum().backward()
    assert images.grad.shape == shape


def test_the_first_patch_that_is_not_a_number_is_chosen_from_any_of_its_tiles():
    images = random_images(1, 1, 12, 36, dtype=torch.float32)
    images[..., 10, 14] = images[..., 1, 30] = math.nan
    images[..., 12:] = images[..., 12:].where(images[..., 12:].isnan(), 0.5)  # flat, but for them
    indices = torch.ops.bmrl.views(images, 12, 3.0, torch.float32, False)[3]
    assert indices.tolist() == richest_patch(images.cpu(), patch_size=12)[1].tolist() == [1]


@pytest.mark.parametrize("size", [(12, 16, 8), (9, 13, 4), (2, 2, 2), (3, 3, 2)], ids=str)
@pytest.mark.parametrize("channels", [3, 1])
def test_gradients_equal_those_of_float64(channels, size):
    # Not of whole gray levels, where a gradient of exactly zero would have no direction in one precision alone.
    images = torch.rand(2, channels, *size[:2], generator=torch.Generator().manual_seed(0)).to(DEVICE)

    def every_view(images: Tensor) -> tuple[Tensor, ...]:
        seen = views(images, patch_size=size[2], truncation=TRUNCATION, dtype=images.dtype)
        return sobel(images), srm(images, truncation=TRUNCATION), *seen

    exact = images.double().cpu().requires_grad_()
    results = every_view(exact)
    random = torch.Generator().manual_seed(1)
    flows = [torch.randn(result.shape, dtype=torch.float64, generator=random) for result in results]
    images.requires_grad_()
    for result, expected, flow in zip(every_view(images), results, flows, strict=True):
        (actual,) = torch.autograd.grad(result, images, flow.to(result), retain_graph=True)
        (wanted,) = torch.autograd.grad(expected, exact, flow, retain_graph=True)
        assert_close(actual, wanted, atol=5e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_half_precision_have_its_dtype(dtype):
    images = random_images(1, 3, 4, 8, dtype=dtype).requires_grad_()
    seen = views(images, patch_size=4, truncation=TRUNCATION)
    (actual,) = torch.autograd.grad(sum(view.square().sum() for view in seen), images)
    exact = images.detach().double().cpu().requires_grad_()
    seen = views(exact, patch_size=4, truncation=TRUNCATION, dtype=torch.float64)
    (expected,) = torch.autograd.grad(sum(view.square().sum() for view in seen), exact)
    assert actual.dtype == dtype
    assert_close(actual, expected, atol=1e-2)


def test_the_gradient_of_a_flat_image_is_zero():
    images = torch.full((1, 3, 4, 4), 0.5, device=DEVICE, requires_grad=True)
    sobel(images).sum().backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


@pytest.mark.parametrize("operator", [sobel, srm, lambda images: views(images, patch_size=4, dtype=images.dtype)[2]])
def test_can_be_differentiated_twice(operator):
    second = []
    for dtype, device in ((torch.float32, DEVICE), (torch.float64, "cpu")):
        images = random_images(1, 3, 6, 8, dtype=torch.float32).to(device, dtype).requires_grad_()
        (first,) = torch.autograd.grad(operator(images).square().sum(), images, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), images)[0])
    assert_close(second[0], second[1], atol=2e-2)  # values of some hundred


def test_runs_give_the_same_bits():
    images = random_images(2, 3, 9, 13, dtype=torch.float32)
    first, second = (torch.ops.bmrl.views(images, 4, 3.0, torch.float32, True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.skipif(DEVICE == "cuda", reason="takes memory that a CPU reserves only")
def test_pixels_that_are_further_apart_than_32_bits_count():
    storage = torch.empty(2**32 + 2**31 + 4, dtype=torch.uint8)
    images = storage.as_strided((1, 3, 3, 3), (0, 2**30 + 2**29, 1, 2**30 + 2**29))
    images.copy_(random_images(1, 3, 3, 3, dtype=torch.uint8))
    for actual, expected in zip(views(images, patch_size=2), views(images.contiguous(), patch_size=2), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs 20 GB of GPU memory")
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_more_pixels_than_32_bits_count(layout):
    images = torch.zeros(1, 1, 46400, 46400, dtype=torch.uint8, device=DEVICE)
    images[..., -8:, -8:] = random_images(1, 1, 8, 8, dtype=torch.uint8)
    images = images.mT if layout == "transposed" else images
    corner = images[..., -9:, -9:].contiguous()
    assert_close(sobel(images)[..., -8:, -8:], sobel_of_opencv(corner)[..., 1:, 1:])
