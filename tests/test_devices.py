from __future__ import annotations

import pytest
import torch

from bmrl._devices import as_device
from bmrl.errors import DeviceError


@pytest.mark.parametrize("given", ["cpu", "cpu:0", torch.device("cpu")])
def test_a_device_that_is_there(given):
    assert as_device(given) == torch.device(given)


@pytest.mark.parametrize("found", [None, torch.device("cuda", 1)])
def test_auto_is_the_accelerator_that_is_available_and_else_the_cpu(monkeypatch, found):
    asked = []

    def current_accelerator(check_available=False):
        asked.append(check_available)
        return found

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current_accelerator)
    assert as_device("auto") == (found or torch.device("cpu"))
    assert asked == [True]


# Each kind fails in its own way: a RuntimeError, an AssertionError, a NotImplementedError, a ModuleNotFoundError.
@pytest.mark.parametrize("given", ["gpu", "", "cuda:99", "cpu:x", "privateuseone", "hpu", "meta", 1.5, None])
def test_any_other_is_an_error_that_names_it(given):
    with pytest.raises(DeviceError, match=r"^device: expected .*, got ") as caught:
        as_device(given)
    assert repr(given) in str(caught.value)
    assert "\n" not in str(caught.value)
