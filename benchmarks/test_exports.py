"""Every export format of the paper's network at 224 px, from uint8 images to probabilities, on this CPU.

python -m pytest benchmarks/test_exports.py [--out FOLDER]

Untrained weights: this is about speed alone. Float32 formats still have to answer as the model does. Speed is measured
twice: as a Python process comes, and with freed memory kept, as ``bmrl`` and the served model do.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.harness import environment
from bmrl.export import FORMATS, compare_formats
from bmrl.export.comparison import measure_speed
from bmrl.export.standalone.artifact_runtime import keep_freed_memory
from bmrl.models import build_model, presets


@pytest.mark.timeout(1800)
def test_every_format(request, tmp_path):
    if request.config.getoption("--on") == "cuda":
        pytest.skip("the formats are compared on a CPU")
    torch.manual_seed(0)
    model = build_model(presets.paper(num_generators=10)).eval()
    images = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8)
    comparison = compare_formats(model, tmp_path, images=images)
    assert {row.format for row in comparison.rows if row.error is None} == set(FORMATS)
    tables = {"as a process comes": comparison}
    keep_freed_memory()
    tables["with freed memory kept"] = measure_speed(comparison, model, images)
    out = request.config.getoption("--out")
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        found = environment("cpu")
        content = {
            "environment": found,
            "measurements": {name: table.to_dict()["rows"] for name, table in tables.items()},
        }
        Path(out, "exports_cpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        page = (
            f"{found['device']}, {found['threads']} threads, torch {found['torch']}; quartiles in brackets. The "
            "weights are random, so that the last three columns say nothing of bf16 and int8.\n"
        )
        for name, table in tables.items():
            page += f"\n{name[0].upper()}{name[1:]}:\n\n{table.to_markdown()}\n"
        Path(out, "exports_cpu.md").write_text(page, encoding="utf-8")
