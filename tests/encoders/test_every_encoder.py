"""Properties that hold for every encoder."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# one encoder, many batches: the fixture only builds it
reuse = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@reuse
@given(data=st.data())
def test_a_row_does_not_depend_on_its_batch(case, data):
    encoder = case.build().eval()
    batch = case.draw(data.draw(st.integers(2, 5)))
    row = data.draw(st.integers(0, len(batch) - 1))
    with torch.inference_mode():
        close(encoder(batch)[row], encoder(batch[row : row + 1])[0])


@reuse
@given(data=st.data())
def test_permuting_the_batch_permutes_the_output(case, data):
    encoder = case.build().eval()
    batch = case.draw(5)
    order = torch.tensor(data.draw(st.permutations(range(5))))
    with torch.inference_mode():
        close(encoder(batch[order]), encoder(batch)[order])


def test_shape_and_empty_batch(case):
    encoder = case.build().eval()
    assert encoder(case.draw(3)).shape == (3, 16)
    assert encoder(case.draw(3)[:0]).shape == (0, 16)


def test_different_inputs_give_different_outputs(case):
    encoder = case.build().eval()
    with torch.inference_mode():
        first, second = encoder(case.draw(2))
    assert (first - second).abs().max() > 1e-4


def test_gradients_reach_every_parameter(case):
    encoder = case.build().train()
    encoder(case.draw(4)).square().sum().backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert without == []
    zero = [name for name, parameter in encoder.named_parameters() if not parameter.grad.any()]
    assert zero == []


def test_compiles_to_one_graph(case):
    encoder = case.build().eval()
    batch = case.draw(2)
    with torch.inference_mode():
        expected = encoder(batch)
        close(torch.compile(encoder, fullgraph=True, backend="eager")(batch), expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces_for_any_batch(case):
    encoder = case.build().eval()
    batch = case.draw(3)
    with torch.inference_mode():
        traced = torch.jit.trace(encoder, batch[:2], check_trace=False)
        close(traced(batch), encoder(batch))
        close(traced(batch[:1]), encoder(batch[:1]))


def test_state_survives_a_copy(case):
    encoder = case.build().eval()
    other = case.build().eval()
    other.load_state_dict(copy.deepcopy(encoder.state_dict()))
    batch = case.draw(2)
    with torch.inference_mode():
        assert torch.equal(other(batch), encoder(batch))
