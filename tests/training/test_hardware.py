"""Devices as PyTorch names them, and what they are to Lightning."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from bmrl.errors import DeviceError
from bmrl.training import hardware
from bmrl.training.hardware import lightning_device, training_device


@pytest.mark.parametrize("index", [None, 0, 1, 7])
def test_a_cuda_device_is_that_one(index):
    device = torch.device("cuda") if index is None else torch.device("cuda", index)
    arguments = lightning_device(device)
    accelerator = AcceleratorRegistry.get("cuda")
    assert arguments["accelerator"] == "cuda"
    chosen = arguments["devices"] if isinstance(arguments["devices"], list) else list(range(arguments["devices"]))
    assert accelerator.get_parallel_devices(chosen) == [torch.device("cuda", index or 0)]


def test_the_cpu_is_taken_by_lightning():
    trainer = L.Trainer(**lightning_device(torch.device("cpu")), logger=False, enable_checkpointing=False)
    assert trainer.strategy.root_device == torch.device("cpu")
    assert trainer.num_devices == 1


@pytest.mark.parametrize(("there", "expected"), [(None, "cpu"), ("cuda", "cuda"), ("mps", "mps"), ("xpu", "cpu")])
def test_auto_is_an_accelerator_that_can_be_trained_on(monkeypatch, there, expected):
    device = None if there is None else torch.device(there)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: device)
    assert training_device("auto") == torch.device(expected)


def test_a_device_that_is_there_but_can_not_be_trained_on(monkeypatch):
    monkeypatch.setattr(hardware, "as_device", torch.device)
    with pytest.raises(DeviceError, match=r"^device: expected one to train on .*, got 'xpu'$"):
        training_device("xpu")
