from __future__ import annotations

import pytest
import torch

from bmrl.errors import RangeError, ShapeError
from bmrl.evaluation.detection import detection_metrics, real_probability
from bmrl.generators import Generator

CAMERA = Generator(name="camera", manipulation="none", architecture="none")
PHONE = Generator(name="phone", manipulation="none", architecture="none")
DDPM = Generator(name="ddpm", manipulation="EFS", architecture="diffusion")


def test_real_probability_sums_the_real_classes():
    rows = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(
        real_probability(rows, [CAMERA, DDPM, PHONE]), torch.tensor([0.5, 0.0], dtype=torch.float64)
    )


def test_figures_of_a_worked_example():
    probability = torch.tensor([0.9, 0.5, 0.4, 0.6, 0.1], dtype=torch.float64)
    real = torch.tensor([True, True, True, False, False])
    found = detection_metrics(probability, real)
    # real: 0.9 and 0.5 right (a tie counts as real), 0.4 wrong; fake: 0.6 wrong, 0.1 right
    assert found["num_real"] == 3
    assert found["num_fake"] == 2
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["auroc"] == pytest.approx((2 + 1 + 1) / 6)


def test_one_kind_alone_has_accuracy_only():
    assert detection_metrics(torch.tensor([0.9, 0.2]), torch.tensor([True, True])) == {
        "num_real": 2, "num_fake": 0, "accuracy": 0.5, "balanced_accuracy": None, "auroc": None,
    }  # fmt: skip


@pytest.mark.parametrize(("classes", "kind"), [([CAMERA, PHONE], "real"), ([DDPM, DDPM], "generated")])
def test_needs_both_kinds_of_classes(classes, kind):
    message = rf"generators: expected real and generated classes, got {kind} ones only"
    with pytest.raises(RangeError, match=message):
        real_probability([[0.5, 0.5]], classes)


def test_needs_one_column_a_class():
    with pytest.raises(ShapeError, match=r"probabilities: expected generators = 3, got 2"):
        real_probability([[0.5, 0.5]], [CAMERA, DDPM, PHONE])
