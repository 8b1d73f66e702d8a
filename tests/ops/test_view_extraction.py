from __future__ import annotations

import pytest
import torch

from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.ops import ViewExtractor, richest_patch, sobel, srm, views


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_equals_the_operators_one_by_one(dtype):
    images = torch.randint(0, 256, (2, 3, 12, 14), dtype=torch.uint8)
    images = images if dtype == torch.uint8 else (images.double() / 255).to(dtype)
    result = views(images, patch_size=6)
    scaled = images.double() / 255 if dtype == torch.uint8 else images.double()
    patches, _ = richest_patch(images, patch_size=6)
    scaled_patches = patches.double() / 255 if dtype == torch.uint8 else patches.double()
    torch.testing.assert_close(result.appearance.double(), scaled, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(result.edge.double(), sobel(scaled), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(result.noise.double(), srm(scaled_patches), rtol=1e-6, atol=5e-6)
    assert {view.dtype for view in result} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_have_the_asked_dtype(dtype):
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    result = views(images, patch_size=4, dtype=dtype)
    exact = views(images.double() / 255, patch_size=4, dtype=torch.float64)
    for view, expected in zip(result, exact, strict=True):
        assert view.dtype == dtype
        tolerance = 2 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        torch.testing.assert_close(view.double(), expected, rtol=tolerance, atol=1e-6)


def test_truncation_is_that_of_srm():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    patches, _ = richest_patch(images, patch_size=4)
    assert torch.equal(views(images, patch_size=4, truncation=0.1).noise, srm(patches, truncation=0.1))
    extractor = ViewExtractor(patch_size=4, truncation=0.1)
    assert extractor(images).noise.abs().max() == pytest.approx(0.1)


def test_layouts(laid_out):
    result = views(laid_out, patch_size=5)
    expected = views(laid_out.contiguous().clone(), patch_size=5)
    for view, other in zip(result, expected, strict=True):
        torch.testing.assert_close(view, other)


def test_input_gradients():
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: tuple(views(image, patch_size=3, dtype=torch.float64)), (images,))


def test_compiles_traces_and_exports_with_any_batch():
    extractor = ViewExtractor(patch_size=4)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    expected = extractor(images)
    for result in (
        torch.compile(extractor, fullgraph=True)(images),
        torch.jit.trace(extractor, images[:2])(images),
        torch.export.export(
            extractor, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=64)}}
        ).module()(images),
    ):
        for view, other in zip(result, expected, strict=True):
            torch.testing.assert_close(view, other, rtol=1e-5, atol=1e-5)


def test_rejects_bad_arguments():
    with pytest.raises(ShapeError, match=r"patch_size: expected at most height and width"):
        views(torch.zeros(1, 3, 8, 8))
    with pytest.raises(RangeError, match=r"truncation: expected > 0, got -1"):
        ViewExtractor(truncation=-1)
    with pytest.raises(DTypeError, match=r"dtype: expected torch.float16 or .*, got torch.uint8"):
        views(torch.zeros(1, 3, 8, 8), patch_size=4, dtype=torch.uint8)
    with pytest.raises(DTypeError, match=r"dtype: expected torch.float16 or .*, got 'float32'"):
        ViewExtractor(dtype="float32")
