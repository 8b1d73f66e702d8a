from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.encoders import StatisticsEncoder
from bmrl.errors import DTypeError, RangeError, ShapeError


def learned(batches, **options):
    encoder = StatisticsEncoder(5, embed_dim=4, **options).train()
    for batch in batches:
        encoder(batch)
    return encoder.eval()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 1000))
def test_mean_and_variance_are_those_of_all_images(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(size, 5, generator=generator) * 3 + 40 for size in sizes]
    rows = torch.cat(batches).double()
    encoder = learned(batches)
    assert encoder.num_images == len(rows)
    if len(rows):
        torch.testing.assert_close(encoder.mean.double(), rows.mean(dim=0), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(encoder.variance.double(), rows.var(dim=0, correction=0), rtol=1e-4, atol=1e-3)
    else:
        assert (encoder.mean == 0).all()
        assert (encoder.variance == 1).all()


def test_evaluation_learns_nothing():
    encoder = learned([torch.randn(9, 5)])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(torch.randn(3, 5) + 100)
    torch.testing.assert_close(dict(encoder.state_dict()), before, rtol=0, atol=0)


def test_units_do_not_matter_once_they_are_learned():
    rows = torch.randn(50, 5)
    scale, offset = torch.tensor([1.0, 10, 100, 1e3, 1e4]), torch.tensor([0.0, 5, -7, 300, 1e3])
    first, second = learned([rows]), StatisticsEncoder(5, embed_dim=4)
    second.load_state_dict(first.state_dict())
    second.variance *= scale**2
    second.mean.copy_(first.mean * scale + offset)
    torch.testing.assert_close(second.eval()(rows * scale + offset), first(rows), rtol=1e-3, atol=1e-3)


def test_outliers_are_bounded():
    encoder = learned([torch.randn(50, 5)])
    far, further = encoder(torch.full((1, 5), 1e3)), encoder(torch.full((1, 5), 1e9))
    torch.testing.assert_close(far, further, rtol=0, atol=0)
    constant = learned([torch.full((8, 5), 3.0)])
    assert constant(torch.full((1, 5), 3.5)).isfinite().all()


def test_reads_float32_whatever_its_layers_compute_in():
    encoder = learned([torch.randn(50, 5) + 30])
    rows = torch.randn(3, 5) + 30
    half = learned([torch.randn(50, 5)])
    half.load_state_dict(encoder.state_dict())
    half = half.to(torch.bfloat16)
    assert half.dtype == torch.float32
    assert half(rows).dtype == torch.bfloat16
    torch.testing.assert_close(half(rows).float(), encoder(rows), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_statistics": 0}, RangeError, "num_statistics: expected"),
        ({"embed_dim": 2.5}, DTypeError, "embed_dim: expected"),
        ({"hidden_dim": -1}, RangeError, "hidden_dim: expected"),
        ({"dropout": 1.0}, RangeError, "dropout: expected"),
    ],
)
def test_refuses_options(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        StatisticsEncoder(**options)


def test_refuses_other_inputs():
    encoder = StatisticsEncoder(5, embed_dim=4)
    with pytest.raises(ShapeError, match=r"^statistics: expected statistics = 5, got 6"):
        encoder(torch.zeros(2, 6))
    with pytest.raises(DTypeError, match=r"^statistics: expected"):
        encoder(torch.zeros(2, 5, dtype=torch.int64))
