"""Where a model comes from and where it runs, by the device's name."""

from __future__ import annotations

import pytest
import torch

from bmrl.errors import DeviceError, DTypeError, MissingFileError
from bmrl.evaluation import predict
from bmrl.inference import Attributor, infer, resolve_model, running
from bmrl.models import build_model, save_model

ELSEWHERE = torch.device("meta")
"""Stands for an accelerator: on the machines that test this there may be none."""


@pytest.fixture
def accelerator(monkeypatch):
    """Let ``auto`` find an accelerator."""
    found = running.as_device

    def as_device(device):
        return ELSEWHERE if device in ("auto", "cuda") else found(device)

    monkeypatch.setattr(running, "as_device", as_device)


@pytest.fixture
def folder(tmp_path, small_config):
    return save_model(build_model(small_config()), tmp_path / "model")


def place(model):
    return next(model.parameters()).device


@pytest.mark.usefixtures("accelerator")
def test_auto_leaves_a_model_in_memory_where_it_is(model, folder):
    assert resolve_model(model, "auto") is model
    assert place(model) == torch.device("cpu")
    assert place(Attributor(model).model) == torch.device("cpu")
    assert place(resolve_model(folder, "auto")) == ELSEWHERE
    assert place(Attributor(folder).model) == ELSEWHERE


@pytest.mark.usefixtures("accelerator")
def test_none_moves_nothing(model, folder):
    assert place(resolve_model(model)) == torch.device("cpu")
    assert place(resolve_model(folder)) == torch.device("cpu")
    assert place(resolve_model(str(folder), None)) == torch.device("cpu")


@pytest.mark.usefixtures("accelerator")
def test_a_device_moves_either(model, folder):
    assert place(resolve_model(folder, "cpu")) == torch.device("cpu")
    assert place(resolve_model(folder, "cuda")) == ELSEWHERE
    assert place(resolve_model(model, "cuda")) == ELSEWHERE


def test_auto_without_an_accelerator_is_the_cpu(model, folder, manifest, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert place(resolve_model(folder, "auto")) == torch.device("cpu")
    assert len(predict(folder, manifest, device="auto").rows) == 9


def test_infer_uses_evaluation_mode_and_puts_the_mode_back(small_config):
    torch.manual_seed(0)
    network = build_model(small_config(**{"*.dropout": 0.5})).train()
    network.head.eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    first, second = infer(network, images), infer(network, images)
    assert torch.equal(first.probabilities, second.probabilities)
    assert not first.probabilities.requires_grad
    assert network.training
    assert not network.head.training


def test_rejects(tmp_path):
    with pytest.raises(DTypeError, match=r"^model: expected .*, got int"):
        resolve_model(3)
    with pytest.raises(MissingFileError, match=r"nowhere"):
        resolve_model(tmp_path / "nowhere")
    with pytest.raises(DeviceError, match=r"^device: expected .*, got 'abacus'"):
        resolve_model(tmp_path / "nowhere", "abacus")  # before anything is read
