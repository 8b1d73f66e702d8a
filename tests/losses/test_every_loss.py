"""What every loss module owes to the project that trains with it."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bmrl.losses import (
    BMRLObjective,
    CMCLoss,
    ContrastiveCenterLoss,
    CPCLoss,
    DFACCLoss,
    LanguageAlignmentLoss,
    _batches,
    _contrastive_pairs,
    contrastive,
)

pytestmark = pytest.mark.slow

GENERATORS, WIDTH, BATCH = 3, 5, 6
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


class Training(nn.Module):
    """A network, a loss, and how the loss takes what the network makes."""

    def __init__(self, loss, arguments):
        super().__init__()
        self.net = nn.Linear(4, WIDTH)
        self.loss = loss
        self.arguments = arguments

    def forward(self, images):
        value = self.loss(*self.arguments(self.net, images))
        return value.total if isinstance(self.loss, BMRLObjective) else value


class Output(NamedTuple):
    logits: Tensor
    probabilities: Tensor
    embedding: Tensor
    predicted_language: Tensor
    parsing: Tensor
    language: Tensor


def clusters(net, images):
    return F.normalize(net(images), dim=-1), LABELS


def pairs(net, images):
    return net(images), net(images.flip(1))


def labeled_pairs(net, images):
    return *pairs(net, images), LABELS


def outputs(net, images):
    embedding = F.normalize(net(images), dim=-1)
    logits = embedding[:, :GENERATORS]
    others = (net(images.roll(shift, 1)) for shift in (1, 2, 3))
    return Output(logits, logits.softmax(1), embedding, *others), LABELS


CASES = {
    "dfacc": (lambda: DFACCLoss(GENERATORS, WIDTH), clusters),
    "dfacc in chunks": (lambda: DFACCLoss(GENERATORS, WIDTH, chunk_rows=2), clusters),
    "vcc": (lambda: ContrastiveCenterLoss(GENERATORS, WIDTH), clusters),
    "cpc": (lambda: CPCLoss(), pairs),
    "cpc in chunks": (lambda: CPCLoss(chunk_rows=2), pairs),
    "cmc": (lambda: CMCLoss(targets="same_label", spa_batch_size=8), labeled_pairs),
    "kl": (lambda: LanguageAlignmentLoss(), pairs),
    "objective": (
        lambda: BMRLObjective(SimpleNamespace(num_generators=GENERATORS, embed_dim=WIDTH), spa_batch_size=BATCH),
        outputs,
    ),
}


@pytest.fixture(params=CASES)
def training(request):
    make, arguments = CASES[request.param]
    return Training(make(), arguments)


@pytest.fixture
def images():
    return torch.randn(BATCH, 4)


def gradients_of(training, value):
    return dict(
        zip(dict(training.named_parameters()), torch.autograd.grad(value, list(training.parameters())), strict=True)
    )


def test_half_precision_under_autocast_with_a_gradient_scaler(training, images):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(training.parameters(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in training.named_parameters()}
    with torch.autocast("cpu", dtype=torch.float16):
        value = training(images)
    assert value.dtype == torch.float32
    expected = gradients_of(training, value)  # unscaled
    with torch.autocast("cpu", dtype=torch.float16):
        scaler.scale(training(images)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 1024.0  # no overflow was met
    for name, parameter in training.named_parameters():
        # The network's products round to half precision, at another place for a scaled gradient.
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * expected[name], rtol=1e-3, atol=1e-3)


def test_an_overflow_skips_the_step(training, images):
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38, growth_interval=1)
    optimizer = torch.optim.SGD(training.parameters(), lr=0.1)
    before = copy.deepcopy(training.state_dict())
    scaler.scale(training(images) * 1e3).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 3e38
    assert all(torch.equal(value, before[name]) for name, value in training.state_dict().items())


def test_functional_call_and_its_gradient(training, images):
    parameters = {name: parameter.detach() + 0.01 for name, parameter in training.named_parameters()}

    def value(parameters):
        return torch.func.functional_call(training, parameters, (images,))

    got = torch.func.grad(value)(parameters)
    twin = copy.deepcopy(training)
    twin.load_state_dict(parameters)
    torch.testing.assert_close(value(parameters), twin(images))
    torch.testing.assert_close(got, gradients_of(twin, twin(images)))


def test_safetensors_round_trip(training, images, tmp_path):
    state = training.state_dict()
    save_file(state, tmp_path / "training.safetensors")
    twin = copy.deepcopy(training)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.equal(twin(images), training(images))
    twin.load_state_dict(load_file(tmp_path / "training.safetensors"))
    assert torch.equal(twin(images), training(images))


def test_compiled_by_inductor(training, images):
    value = torch.compile(training, fullgraph=True)(images)
    expected = training(images)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients_of(training, value), gradients_of(training, expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.LBFGS])
def test_any_optimizer_lowers_it(training, images, make):
    optimizer = make(training.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        value = training(images)
        value.backward()
        return value

    first = closure().item()
    for _ in range(10):
        optimizer.step(closure)
    assert training(images).item() < first


def test_double_precision(training, images):
    assert training.double()(images.double()).dtype == torch.float64


class _NoWaiting(TorchDispatchMode):
    """Refuses what makes a GPU hand a value, or a size that depends on values, to Python."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in self.waits, f"{function} would make a GPU wait"
        return function(*args, **(kwargs or {}))


def test_values_are_looked_at_on_the_cpu_alone(training, images, monkeypatch):
    with pytest.raises(AssertionError, match="would make a GPU wait"), _NoWaiting():
        training(images)
    for module in (_batches, _contrastive_pairs, contrastive):  # as on any other device
        monkeypatch.setattr(module, "has_values", lambda tensor: False)
    with _NoWaiting():
        training(images).backward()


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that is made, in elements."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize(
    "loss",
    [
        lambda rows, labels: DFACCLoss(4, 3)(rows, labels),
        lambda rows, labels: CPCLoss()(rows, rows.flip(0)),
        lambda rows, labels: CMCLoss(targets="same_label")(rows, rows.flip(0), labels),
    ],
    ids=["dfacc", "cpc", "cmc"],
)
def test_no_tensor_grows_with_the_square_of_a_large_batch(loss):
    def largest(batch):
        rows = F.normalize(torch.randn(batch, 3), dim=1).requires_grad_()
        with _Largest() as mode:
            loss(rows, torch.arange(batch) % 4).backward()
        return mode.elements

    assert largest(1000) >= 1000 * 999 / 2  # all pairs at once, and this test sees them
    assert largest(4096) <= 2**20


LAYOUTS = {
    "transposed": lambda rows: rows.mT.contiguous().mT,
    "columns of wider rows": lambda rows: torch.cat([rows, rows], 1)[:, : rows.shape[1]],
    "every other column": lambda rows: rows.repeat_interleave(2, 1)[:, ::2],
    "every other row": lambda rows: rows.repeat_interleave(2, 0)[::2],
    "one row for all": lambda rows: rows[:1].expand_as(rows),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_rows_lie_in_memory_as_they_like(name, layout):
    make, arguments = CASES[name]
    loss = make()

    def value_and_gradients(arrange):
        net = nn.Linear(4, WIDTH)
        with torch.no_grad():
            net.weight.copy_(torch.arange(4.0 * WIDTH).sin().reshape(WIDTH, 4))
            net.bias.zero_()
        images = torch.arange(4.0 * BATCH).cos().reshape(BATCH, 4)
        taken = arguments(net, images)
        taken = tree_map(lambda t: arrange(t) if t.ndim == 2 else t, taken)
        value = loss(*taken)
        value = value.total if isinstance(loss, BMRLObjective) else value
        return value, *torch.autograd.grad(value, [net.weight, *loss.parameters()])

    expected = value_and_gradients(lambda rows: LAYOUTS[layout](rows).contiguous())
    for actual, wanted in zip(value_and_gradients(LAYOUTS[layout]), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)
