from __future__ import annotations

import pytest
import torch
from torch import nn

from bmrl.encoders import ConvBackbone
from bmrl.errors import ConfigError, DTypeError, ShapeError


def test_papers_sizes():
    backbone = ConvBackbone().eval()
    convolutions = [layer for layer in backbone.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32] * 3 + [64] * 3 + [128] * 3 + [256] * 4 + [512] * 4
    with torch.inference_mode():
        assert backbone(torch.rand(1, 3, 224, 224)).shape == (1, 512, 7, 7)
        assert ConvBackbone(final_pool=False).eval()(torch.rand(1, 3, 112, 112)).shape == (1, 512, 7, 7)


@pytest.mark.parametrize(("final_pool", "stride"), [(True, 8), (False, 4)])
def test_stride_is_what_the_map_shows(final_pool, stride):
    backbone = ConvBackbone(1, channels=(2, 3, 4), convs_per_stage=(1, 1, 1), final_pool=final_pool)
    assert backbone.stride == stride
    assert backbone(torch.rand(2, 1, 16, 24)).shape == (2, 4, 16 // stride, 24 // stride)


def test_rejects_bad_input():
    backbone = ConvBackbone(3, channels=(4,), convs_per_stage=(1,))
    with pytest.raises(ShapeError, match=r"images: expected channels = 3, got 1"):
        backbone(torch.rand(1, 1, 8, 8))
    with pytest.raises(DTypeError, match=r"images: expected a floating-point dtype, got torch.uint8"):
        backbone(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(
        ConfigError, match=r"convs_per_stage: expected one entry per stage of channels \(4, 8\), got \(1,\)"
    ):
        ConvBackbone(channels=(4, 8), convs_per_stage=(1,))
