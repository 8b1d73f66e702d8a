"""Losses over the batches of several real processes: equal to one process with the whole batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bmrl.losses import CPCLoss, DFACCLoss

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("gather_worker.py")


def _load(script):
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORKER = _load(SCRIPT)


@pytest.fixture(scope="module", params=[(5, 3), (4, 0, 3)], ids=["2 processes", "3 processes, one without rows"])
def processes(request, tmp_path_factory):
    """The rows of each process, and what each found, by case."""
    out = tmp_path_factory.mktemp("gather") / "results"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(request.param)}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [*command, SCRIPT, out, *map(str, request.param)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return request.param, [torch.load(f"{out}.{rank}") for rank in range(len(request.param))]


@pytest.mark.parametrize("name", list(WORKER.CASES))
@pytest.mark.parametrize("wrapping", WORKER.WRAPPINGS)
def test_equals_one_process_with_the_whole_batch(processes, name, wrapping):
    lengths, answers = processes
    alone = WORKER.run_alone(name, sum(lengths))
    assert all(gradient.abs().max() > 1e-6 for gradient in alone["gradients"].values())  # something is learned
    for answer in answers:
        torch.testing.assert_close(answer["results"][name, wrapping], alone, rtol=1e-9, atol=1e-12)


def test_all_processes_name_embeddings_of_different_width(processes):
    _, answers = processes
    said = [answer["refusal"] for answer in answers]
    widths = [f"torch.float32 (rows, {3 + rank}) on cpu in process {rank}" for rank in range(len(said))]
    assert said == [f"embeddings: expected the same in all processes, got {', '.join(widths)}"] * len(said)


def test_one_process_needs_no_process_group():
    embeddings, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    loss = DFACCLoss(2, 3, gather=True)
    expected = DFACCLoss(2, 3)
    expected.load_state_dict(loss.state_dict())
    assert torch.equal(loss(embeddings, labels), expected(embeddings, labels))
    assert torch.equal(CPCLoss(gather=True)(embeddings, embeddings), CPCLoss()(embeddings, embeddings))
