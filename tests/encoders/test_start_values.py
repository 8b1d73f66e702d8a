"""The spread of the weights that training starts from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bmrl.encoders import ConvBackbone, LanguageEncoder, TransformerEncoder


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def assert_spread(tensor, expected):
    assert abs(tensor.mean().item()) < 0.2 * expected
    assert 0.85 * expected < tensor.std().item() < 1.15 * expected


def test_learned_tokens():
    encoder = TransformerEncoder(512, num_tokens=9, num_blocks=1)
    assert_spread(encoder.class_token, 0.02)
    assert_spread(encoder.position_embedding, 0.02)


def test_words_and_their_places():
    encoder = LanguageEncoder(64, vocab_size=300, num_blocks=1)
    assert_spread(encoder.word_embedding.weight, 0.02)
    assert_spread(encoder.position_embedding, 0.01)


def test_convolutions_keep_the_spread_of_gradients():
    backbone = ConvBackbone(3, channels=(64, 64), convs_per_stage=(1, 1))
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            assert_spread(layer.weight, math.sqrt(2 / (9 * layer.out_channels)))
