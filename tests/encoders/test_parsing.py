from __future__ import annotations

import pytest
import torch

from bmrl.encoders import ParsingEncoder, color_parsing
from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.parsing import PARSING_CLASSES, PARSING_COLORS

SMALL = {"embed_dim": 8, "channels": (3, 4), "convs_per_stage": (1, 1), "num_blocks": 1, "num_heads": 2, "mlp_dim": 8}


def test_classes_and_colors():
    assert len(PARSING_CLASSES) == len(PARSING_COLORS) == len(set(PARSING_COLORS)) == 19
    known = dict(zip(PARSING_CLASSES, PARSING_COLORS, strict=True))
    assert known["background"] == (0, 0, 0)
    assert known["skin"] == (0, 85, 255)  # (255, 85, 0) in the BGR order of common drawing code
    assert known["hat"] == (255, 0, 255)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_every_index_gets_its_color(dtype):
    parsing = torch.arange(19).reshape(1, 1, 19).to(dtype)
    colored = color_parsing(parsing)
    assert colored.shape == (1, 3, 1, 19)
    for index, color in enumerate(PARSING_COLORS):
        assert (colored[0, :, 0, index] * 255).round().int().tolist() == list(color)


def test_encoder_sees_the_colors():
    encoder = ParsingEncoder(16, **SMALL).eval()
    parsing = torch.randint(0, 19, (2, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        expected = super(ParsingEncoder, encoder).forward(color_parsing(parsing))
        assert torch.equal(encoder(parsing), expected)
    assert "palette" not in encoder.state_dict()


def test_rejects_bad_input():
    encoder = ParsingEncoder(16, **SMALL)
    with pytest.raises(RangeError, match=r"parsing: expected class indices 0..18, got 0..19"):
        encoder(torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16) % 20)
    with pytest.raises(RangeError, match=r"parsing: expected class indices 0..18, got -1..-1"):
        encoder(torch.full((1, 16, 16), -1))
    with pytest.raises(ShapeError, match=r"parsing: expected shape \(batch, height, width\), got \(1, 3, 16, 16\)"):
        encoder(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(DTypeError, match=r"parsing: expected torch.uint8 or torch.int64, got torch.float32"):
        encoder(torch.zeros(1, 16, 16))
