"""Losses and operators where tensors live otherwise: meta, another default dtype or device, replicas, any batch."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend

from bmrl.losses import (
    BMRLObjective,
    CMCLoss,
    ContrastiveCenterLoss,
    CPCLoss,
    DFACCLoss,
    LanguageAlignmentLoss,
    ObjectiveResult,
)
from bmrl.ops import SRM, Grayscale, PatchHomogeneity, RichestPatch, Sobel, ViewExtractor


def clusters(batch, device=None, dtype=None):
    rows = F.normalize(torch.randn(batch, 5, device=device, dtype=dtype), dim=1)
    return rows.requires_grad_(), torch.arange(batch, device=device) % 3


def pairs(batch, device=None, dtype=None):
    return tuple(torch.randn(batch, 5, device=device, dtype=dtype).requires_grad_() for _ in range(2))


def labeled_pairs(batch, device=None, dtype=None):
    return *pairs(batch, device, dtype), torch.arange(batch, device=device) % 3


def outputs(batch, device=None, dtype=None):
    embedding, others = clusters(batch, device, dtype)[0], (*pairs(batch, device, dtype), *pairs(batch, device, dtype))
    logits = embedding[:, :3]
    output = SimpleNamespace(logits=logits, probabilities=logits.softmax(1), embedding=embedding)
    output.predicted_language, output.parsing, output.language, _ = others
    output.parsing_mask = torch.arange(batch, device=device) > 0
    return output, torch.arange(batch, device=device) % 3


CONFIG = SimpleNamespace(num_generators=3, embed_dim=5)
LOSSES = {
    "dfacc": (lambda: DFACCLoss(3, 5), clusters),
    "dfacc in chunks": (lambda: DFACCLoss(3, 5, chunk_rows=4), clusters),
    "vcc": (lambda: ContrastiveCenterLoss(3, 5), clusters),
    "cpc": (CPCLoss, pairs),
    "cpc in chunks": (lambda: CPCLoss(chunk_rows=4), pairs),
    "cmc": (lambda: CMCLoss(targets="same_label", spa_batch_size=64), labeled_pairs),
    "cmc in chunks": (lambda: CMCLoss(targets="same_label", spa_batch_size=64, chunk_rows=4), labeled_pairs),
    "kl": (LanguageAlignmentLoss, pairs),
    "objective": (lambda: BMRLObjective(CONFIG, spa_batch_size=64), outputs),
    "objective in chunks": (lambda: BMRLObjective(CONFIG, spa_batch_size=64, chunk_rows=4), outputs),
}
OPERATORS = {
    "grayscale": Grayscale,
    "sobel": Sobel,
    "srm": SRM,
    "patch_homogeneity": lambda: PatchHomogeneity(patch_size=4),
    "richest_patch": lambda: RichestPatch(patch_size=4),
    "views": lambda: ViewExtractor(patch_size=4),
}


def value(loss, arguments):
    result = loss(*arguments)
    return result.total if isinstance(result, ObjectiveResult) else result


def leaves(arguments):
    tensors = vars(arguments[0]).values() if isinstance(arguments[0], SimpleNamespace) else arguments
    return [tensor for tensor in tensors if tensor is not None and tensor.is_leaf and tensor.requires_grad]


@pytest.mark.parametrize("batch", [6, 1100])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_on_meta(name, batch):
    make, draw = LOSSES[name]
    if "chunks" in name or "64" in repr(make()):  # many small chunks, or the side of the gate
        batch = min(batch, 64)
    with torch.device("meta"):
        loss = make()
    arguments = draw(batch, device="meta")
    result = value(loss, arguments)
    result.backward()
    assert (result.device.type, result.shape, result.dtype) == ("meta", (), torch.float32)
    assert all(parameter.grad.shape == parameter.shape for parameter in loss.parameters())
    assert leaves(arguments)
    assert any(leaf.grad is not None and leaf.grad.device.type == "meta" for leaf in leaves(arguments))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_on_meta(name, dtype):
    images = torch.zeros(2, 3, 8, 8, dtype=dtype)
    expected = OPERATORS[name]()(images)
    got = OPERATORS[name]()(images.to("meta"))
    for one, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, expected)), strict=True):
        assert (one.device.type, one.shape, one.dtype) == ("meta", other.shape, other.dtype)


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_with_float64_as_the_default(double_by_default, name, dtype):
    make, draw = LOSSES[name]
    loss, arguments = make(), draw(9, dtype=dtype)
    assert all(parameter.dtype == torch.float64 for parameter in loss.parameters())
    result = value(loss, arguments)
    result.backward()
    centers = any(name in dict(loss.named_parameters()) for name in ("centers", "dfacc.centers"))
    assert result.dtype == (torch.float64 if centers else torch.promote_types(dtype, torch.float32))
    torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(value(loss, arguments), result)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_with_float64_as_the_default(double_by_default, name, dtype):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    images = images if dtype == torch.uint8 else (images / 255).to(dtype)
    got = OPERATORS[name]()(images)
    torch.set_default_dtype(torch.float32)
    expected = OPERATORS[name]()(images)
    torch.testing.assert_close(tuple(got) if isinstance(got, tuple) else got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [9, 64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_whatever_the_default_device(name, batch):
    make, draw = LOSSES[name]
    loss, arguments = make(), draw(batch)
    expected = value(loss, arguments)
    gradients = torch.autograd.grad(expected, leaves(arguments), allow_unused=True)
    with torch.device("meta"):
        got = value(loss, arguments)
        again = torch.autograd.grad(got, leaves(arguments), allow_unused=True)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close([g for g in again if g is not None], [g for g in gradients if g is not None])


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_whatever_the_default_device(name):
    images = torch.rand(2, 3, 8, 8)
    expected = OPERATORS[name]()(images)
    with torch.device("meta"):
        got = OPERATORS[name]()(images)
    torch.testing.assert_close(tuple(got) if isinstance(got, tuple) else got, expected)


def replica_of(module):
    """What ``nn.DataParallel`` runs on each GPU: copies whose parameters are plain tensors that autograd links."""
    modules = list(module.modules())
    copies = {one: one._replicate_for_data_parallel() for one in modules}
    for one, other in copies.items():
        for name, child in one._modules.items():
            other._modules[name] = None if child is None else copies[child]
        for name, parameter in one._parameters.items():
            if parameter is None:
                other._parameters[name] = None
            else:
                setattr(other, name, parameter.clone())
    return copies[module]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_in_a_replica_of_data_parallel(name):
    make, draw = LOSSES[name]
    loss, arguments = make(), draw(6)
    replica = replica_of(loss)
    assert not list(replica.parameters())  # as nn.DataParallel leaves it
    torch.testing.assert_close(value(replica, arguments), value(loss, arguments))
    value(replica, arguments).backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    repr(replica)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_in_data_parallel(name):
    make, draw = LOSSES[name]
    loss, arguments = make(), draw(6)
    torch.testing.assert_close(
        torch.nn.DataParallel(loss)(*arguments), loss(*arguments)
    )  # without a GPU it calls the module itself


@pytest.mark.parametrize("way", ["dynamic=True", "mark_dynamic"])
@pytest.mark.parametrize("name", LOSSES)
def test_compiled_once_for_all_batches(name, way):
    torch._dynamo.reset()
    make, draw = LOSSES[name]
    loss, counter = make(), CompileCounterWithBackend("eager")
    compiled = torch.compile(loss, fullgraph=True, dynamic=True if way == "dynamic=True" else None, backend=counter)

    def check(batch):
        arguments = draw(batch)
        if way == "mark_dynamic":
            tensors = vars(arguments[0]).values() if isinstance(arguments[0], SimpleNamespace) else arguments
            for tensor in [*tensors, arguments[1]]:
                torch._dynamo.mark_dynamic(tensor, 0)
        got, expected = value(compiled, arguments), value(loss, arguments)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        got.backward()

    for batch in (6, 7):  # the second tells the compiler that batches differ
        check(batch)
    after_two = counter.frame_count
    assert after_two <= 2
    for batch in (9, 17, 63):  # within the gate, beyond a chunk
        check(batch)
    assert counter.frame_count == after_two


@pytest.mark.parametrize("name", ["dfacc", "cpc"])
def test_compiled_for_small_and_large_batches(name):
    make, draw = LOSSES[name]
    loss = make()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (1024, 1500):
        arguments = draw(batch)
        got, expected = value(compiled, arguments), value(loss, arguments)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            torch.autograd.grad(got, leaves(arguments)), torch.autograd.grad(expected, leaves(arguments))
        )


@pytest.mark.parametrize("name", LOSSES)
def test_copies_are_independent(name):
    make, draw = LOSSES[name]
    loss, arguments = make(), draw(6)
    twin = copy.deepcopy(loss)
    torch.testing.assert_close(value(twin, arguments), value(loss, arguments))
