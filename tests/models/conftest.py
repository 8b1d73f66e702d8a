"""A model small enough to build in every test."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bmrl.models import BMRL, BMRLConfig, build_model, presets

SMALL: dict[str, Any] = {
    "image_size": 32,
    "embed_dim": 16,
    "*.channels": (4, 6, 8),
    "*.convs_per_stage": (1, 1, 1),
    "*.num_blocks": 1,
    "*.mlp_dim": 16,
    "language.vocab_size": 50,
    "language.context_length": 6,
}


def make_config(**changes: Any) -> BMRLConfig:
    """Return a small configuration of three classes; ``generators`` may be changed too."""
    config = presets.tiny(num_generators=3, **SMALL)
    return config.with_changes(changes)


@pytest.fixture
def make_model():
    """Return a function that builds a small model of three classes in evaluation mode."""

    def make(**changes: Any) -> BMRL:
        torch.manual_seed(0)
        return build_model(make_config(**changes)).eval()

    return make
