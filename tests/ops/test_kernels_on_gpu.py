"""What only a GPU can show: the kernels inside compiled and exported programs, and at the sizes of real use."""

from __future__ import annotations

import pytest
import torch

import bmrl.ops._operators  # noqa: F401
from bmrl.ops import ViewExtractor, richest_patch, sobel, srm, views

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def random_images(batch: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device="cuda")
    return images if dtype == torch.uint8 else (images.float() / 255).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 33])
def test_kernels_equal_aten(batch, dtype):
    images = random_images(batch, dtype)
    exact = views(images.double() / 255 if dtype == torch.uint8 else images.double(), dtype=torch.float64)
    indices = torch.ops.bmrl.views(images, 112, 3.0, torch.float32, True)[3]
    assert torch.equal(indices.cpu(), richest_patch(images.cpu())[1])
    if dtype in (torch.uint8, torch.float32):
        for actual, expected in zip(views(images), exact, strict=True):
            torch.testing.assert_close(actual.double(), expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("operator", [sobel, srm, views], ids=["sobel", "srm", "views"])
def test_compiled_code_runs_the_kernels(operator):
    images = random_images(4, torch.float32).requires_grad_()
    compiled = torch.compile(operator, fullgraph=True)
    for actual, expected in zip(_tuple(compiled(images)), _tuple(operator(images)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
        if actual is not images:
            (got,) = torch.autograd.grad(actual.square().sum(), images, retain_graph=True)
            (wanted,) = torch.autograd.grad(expected.square().sum(), images, retain_graph=True)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_generated_code_contains_the_kernels():
    from torch._inductor.utils import run_and_get_code

    extractor = torch.compile(ViewExtractor(), fullgraph=True)
    _, code = run_and_get_code(extractor, random_images(2))
    assert "edge_kernel" in code[0]
    assert "noise_kernel" in code[0]


class PlainViews(torch.nn.Module):
    """The views as a plain tuple: a package that holds our named one would need this library to be read."""

    def forward(self, images):
        return tuple(views(images))


def test_an_aot_inductor_package_runs_without_this_library(assert_package_runs_alone):
    assert_package_runs_alone(PlainViews(), random_images(3), 1e-6)


@pytest.mark.parametrize("operation", ["sobel", "srm", "views"])
def test_passes_opcheck(operation):
    images = torch.rand(2, 3, 12, 10, device="cuda", requires_grad=True)
    arguments = {
        "sobel": (images, torch.float32),
        "srm": (images, 0.3123, torch.float32),
        "views": (images, 5, 0.3123, torch.float32, True),
    }
    torch.library.opcheck(getattr(torch.ops.bmrl, operation).default, arguments[operation])


def test_views_take_two_launches():
    images = random_images(2)
    views(images)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        views(images)
    assert sum(event.count for event in profile.key_averages() if event.key.endswith("_kernel")) == 2


def test_runs_give_the_same_bits():
    images = random_images(64)
    first, second = (torch.ops.bmrl.views(images, 112, 3.0, torch.bfloat16, True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)
