from __future__ import annotations

from pathlib import Path

import torch

from bmrl.export import verification
from bmrl.export.verification import BATCHES, Reference, verify


def test_decisions_are_those_of_the_rule(monkeypatch):
    """The rule compares in float64: 0.7 rounded to float32, and the number below it, are both below 0.7."""
    images, embedding = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 2)
    near = torch.tensor([[0.7, 0.3]])
    below = torch.nextafter(near, torch.zeros(1, 2))
    answers = {f"probabilities.{size}": near.repeat(size + 1, 1) for size in BATCHES}
    answers |= {f"embedding.{size}": embedding.repeat(size + 1, 1) for size in BATCHES}
    monkeypatch.setattr(verification, "_answers", lambda path, images, engine: answers)
    found = verify(Path("model.pt"), Reference(images, below, embedding, True), [0.7], exact=True)
    assert (found.decisions_changed, found.top1_agreement) == (0, 1.0)
    between = (near[0, 0].item() + below[0, 0].item()) / 2
    found = verify(Path("model.pt"), Reference(images, below, embedding, True), [0.7, between], exact=False)
    assert found.decisions_changed == 1
