"""The graph that every format holds: the same answers as the model, less than the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bmrl.export.graph import InferenceGraph
from bmrl.models import build_model


@pytest.fixture
def used(model):
    """Return a model whose batch norms have seen data, so that folding them changes numbers."""
    used = build_model(model.config)
    used.load_state_dict(model.state_dict())
    rng = torch.Generator().manual_seed(0)
    for module in used.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                values.data.uniform_(0.5, 2.0, generator=rng)
            for values in (module.bias, module.running_mean):
                values.data.normal_(generator=rng)
    return used.train()


def test_answers_as_the_model_without_batch_norms_and_training_branches(used, images):
    before = {name: values.clone() for name, values in used.state_dict().items()}
    graph = InferenceGraph(used)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in graph.modules())
    assert not any("parsing" in name or "language" in name for name, _ in graph.named_parameters())
    assert not any(parameter.requires_grad for parameter in graph.parameters())
    probabilities, embedding, score = graph(images)
    assert used.training
    assert all(torch.equal(values, before[name]) for name, values in used.state_dict().items())
    with torch.no_grad():
        right = used.eval()(images)
    torch.testing.assert_close(probabilities, right.probabilities, rtol=0, atol=1e-6)
    torch.testing.assert_close(embedding, right.embedding, rtol=1e-4, atol=1e-5)
    assert torch.equal(score, probabilities.amax(1, keepdim=True))


def test_in_bf16_the_head_stays_float32(used, images):
    graph = InferenceGraph(used, dtype=torch.bfloat16)
    kinds = {name: values.dtype for name, values in graph.named_parameters()}
    assert {kinds.pop(name) for name in [*kinds] if ".head." in name} == {torch.float32}
    assert set(kinds.values()) == {torch.bfloat16}
    probabilities, embedding, score = graph(images)
    assert {probabilities.dtype, embedding.dtype, score.dtype} == {torch.float32}
    with torch.no_grad():
        right = used.eval().head(embedding).softmax(1)  # of the embedding as it is given out, exactly
    torch.testing.assert_close(probabilities, right, rtol=0, atol=1e-6)
