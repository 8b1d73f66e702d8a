"""What can't be a picture in [0, 1] is refused, where a look at the values is free."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses import FakeTensorMode

from bmrl.errors import BMRLError, RangeError
from bmrl.ops import ViewExtractor, grayscale, patch_homogeneity, richest_patch, sobel, srm, views

PICTURES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PICTURES[:, :, 0, 0], PICTURES[:, :, 0, 1] = 0, 1
MEAN, DEVIATION = (
    torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)

UNLIKE_PICTURES = {
    "normalized as for ImageNet": (PICTURES - MEAN) / DEVIATION,
    "in [-1, 1]": PICTURES * 2 - 1,
    "to 255": PICTURES * 255,
    "one pixel of infinity": PICTURES.clone().index_put_((torch.tensor(1),) * 4, torch.tensor(math.inf).double()),
    "to 255, one pixel of NaN": (PICTURES * 255).index_put_((torch.tensor(1),) * 4, torch.tensor(math.nan).double()),
}
OPERATORS = {
    "srm": srm,
    "patch_homogeneity": lambda images: patch_homogeneity(images, patch_size=4),
    "richest_patch": lambda images: richest_patch(images, patch_size=4),
    "views": lambda images: views(images, patch_size=4),
    "ViewExtractor": ViewExtractor(patch_size=4),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", UNLIKE_PICTURES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_refuses_what_is_no_picture(operator, kind, dtype):
    with pytest.raises(RangeError, match=r"^images: expected floating point values [^\n]*, got [^\n]*$") as caught:
        OPERATORS[operator](UNLIKE_PICTURES[kind].to(dtype))
    assert isinstance(caught.value, BMRLError)


def test_the_message_names_the_range():
    with pytest.raises(RangeError) as caught:
        views(PICTURES * 255, patch_size=4)
    assert str(caught.value) == "images: expected floating point values in [0, 1], got 0..255"
    with pytest.raises(RangeError) as caught:
        srm(PICTURES * 255)
    assert str(caught.value) == "images: expected floating point values that span at most 1, got 0..255"


@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - {"srm"}))
def test_what_is_only_shifted_to_zero_is_refused(operator):
    with pytest.raises(RangeError, match=r"got -0\.5\.\.0\.5$"):
        OPERATORS[operator](PICTURES - 0.5)


@pytest.mark.parametrize("mode", ["bicubic", "lanczos"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_takes_the_overshoot_of_resampling(operator, mode):
    # A circle in black and white, the hardest edges in all directions.
    places = torch.arange(64) - 31.5
    disk = (places[:, None] ** 2 + places**2 < 400).double().expand(1, 3, 64, 64).clone()
    if mode == "bicubic":
        resized = torch.nn.functional.interpolate(disk, size=90, mode="bicubic")
    else:  # Lanczos with three lobes, at half a pixel between the samples
        taps = torch.tensor([k + 0.5 for k in range(-3, 3)], dtype=torch.float64)
        weights = torch.sinc(taps) * torch.sinc(taps / 3)
        weights = weights / weights.sum()
        resized = torch.nn.functional.conv2d(disk[:, :1], torch.outer(weights, weights)[None, None]).expand(
            1, 3, -1, -1
        )
    assert resized.min() < -0.05  # it does overshoot
    assert resized.max() > 1.05
    OPERATORS[operator](resized)


@pytest.mark.parametrize("operator", OPERATORS)
def test_takes_the_furthest_overshoot_of_bicubic_resampling(operator):
    # Half a pixel between the samples, black where the weights are negative and white elsewhere, and the reverse.
    signs = torch.tensor([-1.0, 1, 1, -1], dtype=torch.float64).repeat(4)[:, None]
    white = (signs * signs.mT).gt(0).double().roll((1, 1), (0, 1))
    pair = torch.stack([white, 1 - white])[:, None]
    resized = torch.nn.functional.interpolate(pair, scale_factor=0.5, mode="bicubic")
    assert resized.amin() == pytest.approx((1 - 1.375**2) / 2)
    assert resized.amax() == pytest.approx((1 + 1.375**2) / 2)
    OPERATORS[operator](resized)


@pytest.mark.parametrize("operator", OPERATORS)
def test_takes_pictures_and_integers_and_what_has_no_pixels(operator):
    run = OPERATORS[operator]
    run(PICTURES)
    run((PICTURES * 255).to(torch.uint8))
    run(PICTURES[:0])
    run(torch.full_like(PICTURES, math.nan))


def test_the_bounds():
    edges = torch.tensor([-0.45, 1.45], dtype=torch.float64).repeat(32).reshape(1, 1, 8, 8)
    views(edges, patch_size=4)
    srm(edges * 0.999)
    for beyond in (edges - 2**-6, edges + 2**-6):
        with pytest.raises(RangeError):
            views(beyond, patch_size=4)
        srm(beyond * 0.999)
    with pytest.raises(RangeError):
        srm(edges * 1.01)


def test_linear_operators_take_any_scale():
    torch.testing.assert_close(grayscale(PICTURES * 255), grayscale(PICTURES) * 255)
    torch.testing.assert_close(sobel(PICTURES * 255 - 3), sobel(PICTURES) * 255)


def test_no_look_where_values_are_none():
    images = (PICTURES * 255).float()
    run = ViewExtractor(patch_size=4)
    run(images.to("meta"))
    torch.compile(run, fullgraph=True, backend="eager")(images)
    torch.export.export(run, (images,))
    torch.jit.trace(run, images, check_trace=False)
    torch.fx.experimental.proxy_tensor.make_fx(lambda image: run(image).edge)(images)
    torch.func.vmap(srm)(images[:, None])
    torch.func.grad(lambda image: run(image).noise.sum())(images)
    torch.func.jvp(srm, (images,), (images,))
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(images)
        run(fake)
    srm(fake)  # outside of its mode, too


def test_a_gradient_may_be_asked_for():
    images = PICTURES.clone().requires_grad_()
    views(images, patch_size=4, dtype=torch.float64).edge.sum().backward()
    assert images.grad.abs().sum() > 0
