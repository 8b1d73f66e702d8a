"""Every export format of the paper's network at 224 px, from uint8 images to probabilities, on this CPU.

python -m pytest benchmarks/test_exports.py [--out FOLDER]

Untrained weights: this is about speed alone. Float32 formats still have to answer as the model does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.harness import environment
from bmrl.export import FORMATS, export_all
from bmrl.export.every_format import format_exports
from bmrl.models import build_model, presets


@pytest.mark.timeout(1800)
def test_every_format(request, tmp_path):
    if request.config.getoption("--on") == "cuda":
        pytest.skip("the formats are compared on a CPU")
    torch.manual_seed(0)
    model = build_model(presets.paper(num_generators=10)).eval()
    images = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8)
    rows = export_all(model, tmp_path, images=images)
    assert {row["format"] for row in rows if row["error"] is None} == set(FORMATS)
    out = request.config.getoption("--out")
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        found = environment("cpu")
        content = {"environment": found, "measurements": rows}
        Path(out, "exports_cpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        head = f"{found['device']}, {found['threads']} threads, torch {found['torch']}; quartiles in brackets.\n\n"
        Path(out, "exports_cpu.md").write_text(head + format_exports(rows) + "\n", encoding="utf-8")
