from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bmrl.errors import ShapeError
from bmrl.models import BMRLOutput, build_model, presets

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
PARSING = torch.randint(0, 19, (2, 32, 32), dtype=torch.uint8)
TOKENS = torch.randint(1, 50, (2, 4, 6))


def parts_of(model) -> set[str]:
    named = dict(zip(("appearance", "edge", "noise"), ("AE", "EE", "NE"), strict=True))
    views = {named[view]: part for view, part in model.visual_encoder.views.items()}
    named = views | {"PE": model.parsing_encoder, "LE": model.language_encoder}
    return {name for name, part in named.items() if part is not None}


def test_output_in_training_and_at_inference(make_model):
    model = make_model()
    trained = model(IMAGES, PARSING, TOKENS)
    assert all(value is not None for value in trained[:-1])
    assert {tuple(value.shape) for value in trained[2:-1]} == {(2, 16)}
    inferred = model(IMAGES)
    assert inferred.parsing is None
    assert inferred.language is None
    torch.testing.assert_close(inferred.logits, trained.logits)
    torch.testing.assert_close(inferred.probabilities.sum(dim=-1), torch.ones(2))
    torch.testing.assert_close(inferred.probabilities, trained.logits.softmax(-1))


def test_heads_act_on_the_normalized_embedding(make_model):
    model = make_model()
    raw = model.visual_encoder(IMAGES)
    output = model(IMAGES)
    torch.testing.assert_close(output.embedding, raw / raw.norm(dim=-1, keepdim=True))
    normed = F.layer_norm(output.embedding, (16,), model.head[0].weight, model.head[0].bias)
    torch.testing.assert_close(output.logits, F.linear(normed, model.head[2].weight, model.head[2].bias))
    torch.testing.assert_close(output.predicted_language, model.predictor(output.embedding))
    plain = make_model(head={"normalize_embedding": False, "norm": False})
    torch.testing.assert_close(plain(IMAGES).logits, plain.head[2](plain.visual_encoder(IMAGES)))


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ((), {"AE", "EE", "NE", "PE", "LE"}),
        (("edge", "noise", "parsing", "language"), {"AE"}),  # CViT
        (("edge", "parsing"), {"AE", "NE", "LE"}),  # MFCLIP
        (("noise", "parsing", "language"), {"AE", "EE"}),
        (("parsing", "language"), {"AE", "EE", "NE"}),
        (("language",), {"AE", "EE", "NE", "PE"}),
        (("parsing",), {"AE", "EE", "NE", "LE"}),
        (("appearance", "edge"), {"NE", "PE", "LE"}),
    ],
)
def test_rows_of_tables_6_and_8(make_model, off, left):
    model = make_model(**dict.fromkeys(off, None))
    assert parts_of(model) == left
    output = model(IMAGES, PARSING, TOKENS)
    assert (output.parsing is not None) == ("PE" in left)
    assert (output.language is not None) == ("LE" in left)
    assert (output.predicted_language is not None) == ("LE" in left)


def test_gradients_reach_every_parameter(make_model):
    model = make_model().train()
    output: BMRLOutput = model(IMAGES, PARSING, TOKENS)
    weights = torch.randn(2, 3)  # a plain sum of softmax inputs would cancel
    total = (output.logits * weights).sum()
    for value in (output.predicted_language, output.parsing, output.language):
        total = total + value.square().sum()
    total.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_same_seed_same_model(make_model):
    first, second = make_model().state_dict(), make_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_paper_runs_at_its_sizes():
    model = build_model(presets.paper(num_generators=10, **{"*.num_blocks": 1})).eval()
    assert model.visual_encoder.views["appearance"].encoder.projection.in_features == 7 * 7 * 512
    with torch.inference_mode():
        output = model(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    assert output.probabilities.shape == (1, 10)
    assert output.embedding.shape == (1, 512)


def test_configuration_reaches_the_noise_view(make_model):
    operator = make_model(noise={"truncation": 0.05, "patch_size": 16}).visual_encoder.views["noise"].operator
    assert (operator.truncation, operator.patch_size) == (0.05, 16)


def test_rejects_another_image_size(make_model):
    with pytest.raises(ShapeError, match=r"images: expected height = 32, got 64 \(shape \(1, 3, 64, 32\)\)"):
        make_model()(torch.zeros(1, 3, 64, 32, dtype=torch.uint8))
