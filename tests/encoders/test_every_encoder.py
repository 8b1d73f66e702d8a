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


@pytest.mark.parametrize("assign", [False, True])
def test_a_start_without_values_ends_as_a_normal_model(case, assign):
    normal = case.build().eval()
    with torch.device("meta"):
        empty = case.build().eval()
    if not assign:
        torch.use_deterministic_algorithms(True)  # fills what is empty with NaN
        try:
            empty.to_empty(device="cpu")
        finally:
            torch.use_deterministic_algorithms(False)
    empty.load_state_dict(normal.state_dict(), assign=assign)
    batch = case.draw(2)
    with torch.inference_mode():
        assert torch.equal(empty(batch), normal(batch))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_any_default_dtype(case, dtype):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        encoder = case.build().eval()
        batch = case.draw(2)
        with torch.inference_mode():
            result = encoder(batch)
    finally:
        torch.set_default_dtype(before)
    assert result.dtype == dtype
    with torch.inference_mode():
        expected = encoder.double()(batch.double() if batch.is_floating_point() else batch)
    scale = expected.abs().max().item()
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=40 * torch.finfo(dtype).eps * scale)


def test_weights_of_another_dtype_may_be_assigned(case):
    encoder = case.build().eval()
    state = {name: t.double() if t.is_floating_point() else t for name, t in encoder.state_dict().items()}
    encoder.load_state_dict(state, assign=True)
    batch = case.draw(2)
    with torch.inference_mode():
        assert encoder(batch.double() if batch.is_floating_point() else batch).dtype == torch.float64


def test_a_replica_of_data_parallel_answers_alike(case):
    encoder = case.build().eval()
    batch = case.draw(2)
    with torch.inference_mode():
        close(replica(encoder)(batch), encoder(batch))


def replica(encoder):
    """What ``torch.nn.parallel.replicate`` makes for each further GPU: a module without ``parameters()``."""
    copied = encoder._replicate_for_data_parallel()
    for name, child in encoder._modules.items():
        copied._modules[name] = None if child is None else replica(child)
    for name, parameter in encoder._parameters.items():
        copied._parameters.pop(name, None)
        setattr(copied, name, None if parameter is None else parameter.detach().clone())
    return copied
