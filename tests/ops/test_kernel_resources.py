"""Every kernel, as it is launched, compiles for a GPU without one, and keeps its values in registers.

For one architecture, as each takes minutes; `python -m benchmarks.kernel_resources` compiles for all supported ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KERNELS = [path.read_text(encoding="utf-8") for path in ROOT.glob("bmrl/*/_triton/*.py")]


def compile_kernels(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.kernel_resources", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.timeout(900)
def test_every_kernel_compiles_without_spills(tmp_path):
    done = compile_kernels("--out", str(tmp_path), "--arch", "90")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "kernel_resources.json").read_text())["kernels"]
    assert {row["architecture"] for row in rows} == {"sm_90"}
    assert all(row["stack_bytes"] == row["spill_instructions"] == 0 for row in rows)
    # Each kernel that a launcher could start was compiled.
    defined = {name for source in KERNELS for name in re.findall(r"^def (\w+_kernel)\(", source, re.M)}
    assert {row["kernel"] for row in rows} == defined
    # Aligned rows move as words of four pixels.
    for row in rows:
        if "aligned, " in row["variant"] and "rows contiguous" in row["variant"] and row["kernel"] != "noise_kernel":
            assert any(name in row["stores"] for name in ("STG.E.128", "STG.E.64")), row
    # The sums of pairs stay in registers: an addition and a multiply-add for each, loaded four or two at a time.
    pairs = [row for row in rows if "sums per thread" in row["variant"]]
    assert len(pairs) > 2
    for row in pairs:
        height, steps = (int(re.search(rf"(\d+) {word}", row["variant"])[1]) for word in ("x 4", "steps"))
        loop = row["largest_loop"]
        for name in ("FADD", "FFMA"):
            assert loop.get(name, 0) == 4 * height * steps, row
        assert not any(name.startswith(("BAR", "LDS", "STS", "SHFL")) for name in loop), row
