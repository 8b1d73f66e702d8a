"""A model in half precision is compared with itself in float32 before it answers."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bmrl.errors import VerificationError
from bmrl.inference import Attributor
from bmrl.models import BMRL, build_model, presets


class Older(BMRL):
    """Computes as a processor without the instructions may: something else, or NaN, in half precision."""

    wrong = 0.0

    def forward(self, images, parsing=None, tokens=None):
        output = super().forward(images)
        if next(self.parameters()).dtype == torch.float32:
            return output
        return output._replace(probabilities=output.probabilities.flip(1) * 0 + self.wrong)


def test_a_model_that_rounds_answers():
    torch.manual_seed(0)
    model = build_model(presets.tiny(num_generators=3)).bfloat16()
    (answer,) = Attributor(model)([Image.new("RGB", (64, 64))])
    assert answer.probability == pytest.approx(1 / 3, abs=0.3)
    assert next(model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [5.0, float("nan")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_computes_something_else_is_refused(wrong, dtype):
    model = build_model(presets.tiny(num_generators=3)).to(dtype)
    model.__class__ = Older
    model.wrong = wrong
    with pytest.raises(VerificationError, match=r"^model: expected .*torch.b?float16 .*, got "):
        Attributor(model)
    Attributor(model.float())
