"""In every format: pretrained encoders behind a resampling, statistics, all patches, and a fusion side by side."""

from __future__ import annotations

import pytest
import torch

from bmrl.encoders import PretrainedEncoder
from bmrl.export import FORMATS, export_model, load_artifact
from bmrl.models import View, build_model, presets
from bmrl.models.views import Pixels

pytest.importorskip("timm")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a C++ compiler may take its time

LIMITS = {"fp32": 1e-4, "bf16": 5e-2, "int8": 0.2}
"""Of the normalized embedding."""


@pytest.fixture(scope="module")
def mixed():
    """A model of all of these."""
    torch.manual_seed(0)
    config = presets.tiny(num_generators=3).with_changes(
        {
            "image_size": 32,
            "embed_dim": 16,
            "appearance": {
                "kind": "pretrained",
                "name": "test_efficientnet",
                "weights": None,
                "stages": [1, 2, 3],
                "input_size": 48,
            },
            "noise": {"patches": "all", "patch_size": 16},
            "statistics": {"hidden_dim": 16},
            "fusion.kind": "concat",
            "*.channels": (4, 8),
            "*.convs_per_stage": (1, 1),
            "*.num_blocks": 1,
            "parsing": None,
            "language": None,
            "fusion.num_heads": 4,
        }
    )
    options = {"pooling": "tokens", "stages": (1,), "num_blocks": 1, "num_heads": 4, "mlp_dim": 16}
    transformer = PretrainedEncoder("test_vit", 32, embed_dim=16, weights=None, **options)
    model = build_model(config, views={"transformer": View(Pixels(), transformer)}).eval()
    model.train()
    model(torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8))  # the statistics are learned
    model.eval()
    with torch.no_grad():  # batch norms as after a training
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "aoti-bf16"])  # it is compiled for minutes
def test_a_file_answers_as_the_model(mixed, format, tmp_path):
    rng = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (12, 3, 8, 8), generator=rng).float()
    images = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").to(torch.uint8)
    with torch.no_grad():
        expected = mixed(images)
    assert torch.pdist(expected.embedding).min() > 1e-2
    path = tmp_path / f"model{FORMATS[format].suffix}"
    export_model(
        mixed, path, format, images=images, calibration=images
    )  # in a process without bmrl and timm, it answers
    probabilities, embedding, _ = load_artifact(path).run(images[:5])
    limit = LIMITS[FORMATS[format].precision]
    torch.testing.assert_close(embedding, expected.embedding[:5], rtol=0, atol=limit)
    torch.testing.assert_close(probabilities, expected.probabilities[:5], rtol=0, atol=limit)
