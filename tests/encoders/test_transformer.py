from __future__ import annotations

import math

import pytest
import torch

from bmrl.encoders import SelfAttention, TransformerBlock, TransformerEncoder
from bmrl.errors import ConfigError, ShapeError


def attention_oracle(attention: SelfAttention, tokens: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Head by head, query by query; scores divided by the root of the head's width."""
    heads, width = attention.num_heads, tokens.shape[-1] // attention.num_heads
    q, k, v = (tokens @ attention.qkv.weight.mT + attention.qkv.bias).chunk(3, dim=-1)
    result = torch.zeros_like(tokens)
    for b in range(tokens.shape[0]):
        for h in range(heads):
            span = slice(h * width, (h + 1) * width)
            for i in range(tokens.shape[1]):
                last = i + 1 if causal else tokens.shape[1]
                scores = [float(q[b, i, span] @ k[b, j, span]) / math.sqrt(width) for j in range(last)]
                top = max(scores)
                weights = [math.exp(score - top) for score in scores]
                for j, weight in enumerate(weights):
                    result[b, i, span] += weight / sum(weights) * v[b, j, span]
    return result @ attention.out.weight.mT + attention.out.bias


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_definition(causal):
    attention = SelfAttention(12, 3, causal=causal).double()
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(
            attention(tokens), attention_oracle(attention, tokens, causal=causal), rtol=1e-10, atol=1e-10
        )


def test_position_embedding_is_indexed_by_token():
    encoder = TransformerEncoder(8, num_tokens=3, num_blocks=1, num_heads=2, mlp_dim=16).eval()
    tokens = torch.randn(1, 3, 8)
    with torch.inference_mode():
        twice = encoder(tokens.expand(2, -1, -1))
        assert torch.allclose(twice[0], twice[1], atol=1e-6)  # not by the place in the batch
        assert not torch.allclose(encoder(tokens.flip(1)), encoder(tokens), atol=1e-6)  # but by the place of the token


def dropped(block: TransformerBlock, part: torch.nn.Module) -> float:
    """Share of what ``part`` adds to the tokens that training drops; the rest must be scaled up to make up for it."""
    others = {block.attention.out, block.mlp[3]} - {part}
    for other in others:
        torch.nn.init.zeros_(other.weight)
        torch.nn.init.zeros_(other.bias)
    tokens = torch.randn(8, 5, 32, dtype=torch.float64)
    with torch.inference_mode():
        whole = block.eval()(tokens) - tokens
        kept = block.train()(tokens) - tokens
    zero = kept.abs() < 1e-9
    torch.testing.assert_close(kept[~zero], 4 * whole[~zero], rtol=1e-6, atol=1e-9)
    return zero.double().mean().item()


@pytest.mark.parametrize("branch", ["attention", "mlp"])
def test_dropout_acts_on_what_each_branch_adds(branch):
    torch.manual_seed(0)
    block = TransformerBlock(32, num_heads=2, mlp_dim=16, dropout=0.75).double()
    block.mlp[2].p = 0.0
    assert 0.7 < dropped(block, block.attention.out if branch == "attention" else block.mlp[3]) < 0.8


def test_dropout_acts_on_the_hidden_layer():
    torch.manual_seed(0)
    block = TransformerBlock(32, num_heads=2, mlp_dim=64, dropout=0.75).train()
    seen = []
    block.mlp[3].register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0] == 0).double().mean().item()))
    block(torch.randn(8, 5, 32))
    assert 0.7 < seen[0] < 0.8


def test_rejects_bad_input():
    encoder = TransformerEncoder(8, num_tokens=3, num_blocks=1, num_heads=2, mlp_dim=16)
    with pytest.raises(ShapeError, match=r"tokens: expected tokens = 3, got 4"):
        encoder(torch.randn(1, 4, 8))
    with pytest.raises(ConfigError, match=r"num_heads: expected a divisor of embed_dim 8, got 3"):
        TransformerEncoder(8, num_tokens=3, num_heads=3)
