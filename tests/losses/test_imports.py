from __future__ import annotations

import json
import os
import subprocess
import sys

import bmrl.losses

SCRIPT = """
import json, sys
import torch
before = set(sys.modules)
import bmrl.losses
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_losses_load_torch_alone():
    # A fresh interpreter; what torch itself loads (it may import triton) is subtracted.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    loaded = json.loads(run.stdout)
    assert "bmrl.losses.dfacc" in loaded
    ours = {name for name in loaded if name.split(".")[0] == "bmrl" and not name.startswith("bmrl.losses")}
    assert ours == {
        "bmrl",
        "bmrl.errors",
        "bmrl._checks",
        "bmrl._kernels",
        "bmrl._precision",
        "bmrl._transforms",
        "bmrl._values",
        "bmrl._version",
    }
    others = {name.split(".")[0] for name in loaded} - {"bmrl", "torch"} - set(sys.stdlib_module_names)
    assert others == set()


def test_public_names():
    assert sorted(bmrl.losses.__all__) == [
        "BMRLObjective",
        "CMCLoss",
        "CPCLoss",
        "ContrastiveCenterLoss",
        "DFACCLoss",
        "DFACCTerms",
        "LanguageAlignmentLoss",
        "ObjectiveResult",
        "contrastive_center_loss",
        "contrastive_loss",
        "dfacc_loss",
        "dfacc_terms",
        "language_alignment_loss",
    ]
    assert all(hasattr(bmrl.losses, name) for name in bmrl.losses.__all__)
