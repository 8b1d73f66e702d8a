"""The AOTInductor package for a CUDA device: answers as the model, with our Triton kernels compiled in."""

from __future__ import annotations

import zipfile

import pytest
import torch

from bmrl.export import export_model, load_artifact
from bmrl.models import build_model, presets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("format", ["aoti", "aoti-bf16"])
def test_answers_as_the_model(tmp_path, format):
    torch.manual_seed(0)
    model = build_model(presets.tiny(num_generators=5)).eval()
    images = torch.randint(0, 256, (5, 3, 128, 128), dtype=torch.uint8)
    path = export_model(model, tmp_path / "model.pt2", format, device="cuda", images=images).path
    artifact = load_artifact(path)
    assert artifact.description["device"] == "cuda"
    with torch.no_grad():
        expected = model(images)
    tolerance = 1e-4 if format == "aoti" else 5e-2
    probabilities, embedding, _ = artifact.run(images)
    assert probabilities.device.type == embedding.device.type == "cpu"
    torch.testing.assert_close(probabilities, expected.probabilities, rtol=0, atol=tolerance)
    with zipfile.ZipFile(path) as package:
        assert any(name.endswith(".cubin") for name in package.namelist())
