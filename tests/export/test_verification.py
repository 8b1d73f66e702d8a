from __future__ import annotations

from pathlib import Path

import torch

from bmrl.export import verification
from bmrl.export.verification import BATCHES, Reference, verify
from bmrl.inference import Limits


def test_decisions_are_those_of_the_rule(monkeypatch):
    """The rule compares in float64: 0.7 rounded to float32, and the number below it, are both below 0.7."""
    images, embedding = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 2)
    near = torch.tensor([[0.7, 0.3]])
    below = torch.nextafter(near, torch.zeros(1, 2))
    answers = {f"probabilities.{size}": near.repeat(size + 1, 1) for size in BATCHES}
    answers |= {f"embedding.{size}": embedding.repeat(size + 1, 1) for size in BATCHES}
    answers |= {f"score.{size}": near[:, :1].repeat(size + 1, 1) for size in BATCHES}
    expected = Reference(images, below, embedding, below[:, :1], True)
    monkeypatch.setattr(verification, "_answers", lambda path, images, engine: answers)
    entry = {"thresholds": [0.7], "limits": Limits.of_threshold(0.7).to_dict()}
    found = verify(Path("model.pt"), expected, entry, exact=True)
    assert (found.decisions_changed, found.top1_agreement) == (0, 1.0)
    between = (near[0, 0].item() + below[0, 0].item()) / 2
    assert (
        verify(Path("model.pt"), expected, entry | {"thresholds": [0.7, between]}, exact=False).decisions_changed == 1
    )
    entry["limits"] = Limits(unseen=0.0, seen=between, probability=0.0, score="energy").to_dict()
    assert verify(Path("model.pt"), expected, entry, exact=False).decisions_changed == 1  # seen instead of uncertain
