"""Every export format of the paper's network at 224 px, from uint8 images to probabilities, on this CPU.

python -m pytest benchmarks/test_exports.py [--out FOLDER]

Untrained weights: only speed matters. Float32 formats must still agree with the model. Speed is measured
twice: in an unmodified Python process, and with freed memory kept, as ``bmrl`` and the served model do.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import write_results
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
    write_results(
        request.config.getoption("--out"),
        "exports",
        "cpu",
        {name: table.to_dict()["rows"] for name, table in tables.items()},
        lambda _, environment: _page(tables, environment),
    )


def _page(tables, environment):
    """The measurements as a Markdown page."""
    page = (
        f"{environment['device']}, {environment['threads']} threads, torch {environment['torch']}; quartiles in "
        "brackets. The weights are random, so that the last three columns say nothing about bf16 and int8.\n"
    )
    for name, table in tables.items():
        page += f"\n{name[0].upper()}{name[1:]}:\n\n{table.to_markdown()}\n"
    return page
