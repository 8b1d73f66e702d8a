"""Processes that gather batches which do not fit together: all of them raise one error, and none waits forever."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from bmrl.errors import ConfigError, DTypeError
from bmrl.losses import (
    BMRLObjective,
    CMCLoss,
    ContrastiveCenterLoss,
    CPCLoss,
    DFACCLoss,
    LanguageAlignmentLoss,
    contrastive_center_loss,
    contrastive_loss,
    dfacc_loss,
    dfacc_terms,
    language_alignment_loss,
)

pytestmark = pytest.mark.slow

PROCESSES = 4
SCRIPT = Path(__file__).with_name("disagreement_worker.py")
FIRST, OTHERS = "in process 0", "in processes 1, 2, 3"
ROWS = "torch.float32 (rows, 3) on cpu"


def differ(error, name, one, others):
    return f"{error}: {name}: expected the same in all processes, got {one} {FIRST}, {others} {OTHERS}"


EXPECTED = {
    "width": differ("ShapeError", "embeddings", ROWS, "torch.float32 (rows, 4) on cpu"),
    "dtype": differ("DTypeError", "embeddings", ROWS, "torch.float64 (rows, 3) on cpu"),
    "dtype of the labels": differ("DTypeError", "labels", "torch.int64 (rows) on cpu", "torch.int32 (rows) on cpu"),
    "margin": differ("ConfigError", "margin", "0.7", "0.5"),
    "a margin that is not a number": differ("ConfigError", "margin", "0.7", "'x'"),
    "number of centers": differ("ShapeError", "centers", "torch.float32 (2, 3) on cpu", "torch.float32 (3, 3) on cpu"),
    "delta": differ("ConfigError", "delta", "1.0", "2.0"),
    "centers": differ("DTypeError", "centers", "torch.float32 (2, 3) on cpu", "torch.float64 (2, 3) on cpu"),
    "rows of one process": (
        "ShapeError: paired_embeddings: expected as many rows as embeddings (4, 3), got (5, 3) in process 1"
    ),
    "no tensor": "DTypeError: paired_embeddings: expected a torch.Tensor, got list in process 1",
    "nothing at all": differ("DTypeError", "embeddings", ROWS, "None"),
    "a number": "ShapeError: paired_embeddings: expected rows, got a tensor of shape () in process 1",
    "mask": differ("DTypeError", "mask", "torch.bool (rows) on cpu", "None"),
    "labels": differ("DTypeError", "labels", "torch.int64 (rows) on cpu", "None"),
    "labels or mask": differ("DTypeError", "labels", "torch.int64 (rows) on cpu", "None"),
    "gate": differ("DTypeError", "gate", "torch.float32 (16, 16) on cpu", "None"),
    "temperature": differ("DTypeError", "temperature", "torch.float32 () on cpu", "0.5"),
    "pair attention": differ("DTypeError", "gate", "torch.float32 (16, 16) on cpu", "nothing"),
    "direction": differ("ConfigError", "direction", "'forward'", "'reverse'"),
    "detach": differ("ConfigError", "detach", "False", "True"),
    "two losses": differ("ConfigError", "loss", "'LanguageAlignmentLoss'", "'contrastive_loss'"),
    "parsing": differ("DTypeError", "parsing", ROWS, "None"),
    "language instead of parsing": differ("DTypeError", "parsing", "None", ROWS),
    "parsing mask": differ("DTypeError", "parsing_mask", "torch.bool (rows) on cpu", "None"),
    "dtype of the parsing": differ("DTypeError", "parsing", ROWS, "torch.float64 (rows, 3) on cpu"),
    "weights": differ(
        "ConfigError",
        "weights",
        "{dfa: 1.0, dfacc: 1.0, vcc: 1.0, cmc: 1.0, cpc: 1.0, kl: 1.0}",
        "{dfa: 1.0, dfacc: 1.0, vcc: 1.0, cmc: 1.0, cpc: 1.0, kl: 0.0}",
    ),
    "terms without parameters": differ("DTypeError", "cmc.log_scale", "torch.float32 (1) on cpu", "nothing"),
    "metric loss": differ("DTypeError", "dfacc.centers", "torch.float32 (2, 3) on cpu", "nothing"),
    "margin of the objective": differ("ConfigError", "dfacc.margin", "0.7", "0.5"),
    "smoothing": differ("ConfigError", "label_smoothing", "0.0", "0.5"),
    "a value that is not a number": "RangeError: embeddings: expected finite values, got inf in row 4",
    "a label out of range": "RangeError: labels: expected values in 0..1, got 0..8",
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each process heard."""
    out = tmp_path_factory.mktemp("disagreement") / "answers"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [*command, SCRIPT, out], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", EXPECTED)
def test_all_processes_raise_one_error(processes, name):
    assert [process["answers"][name] for process in processes] == [EXPECTED[name]] * PROCESSES


def test_no_case_is_left_out_and_all_is_well_afterwards(processes):
    for process in processes:
        assert process["answers"].keys() == EXPECTED.keys()
        assert process["afterwards"] == "nothing"


@pytest.mark.parametrize("parity", [0, 1])
def test_a_group_is_a_batch_of_its_own(processes, parity):
    members = [process["groups"] for process in processes[parity::2]]
    embeddings = torch.tensor([row for member in members for row in member["embeddings"]], requires_grad=True)
    labels = torch.tensor([label for member in members for label in member["labels"]])
    centers = torch.tensor(members[0]["centers"])
    expected = dfacc_loss(embeddings, labels, centers)
    (gradient,) = torch.autograd.grad(expected, embeddings)
    # Each takes its part of the gradient times the number of processes, which a mean takes back.
    got = torch.tensor([row for member in members for row in member["gradient"]]) / len(members)
    torch.testing.assert_close(got, gradient)
    for member in members:
        assert member["centers"] == members[0]["centers"]
        assert member["value"] == member["function"] == pytest.approx(expected.item(), rel=1e-6)


def test_the_groups_differ(processes):
    assert processes[0]["groups"]["centers"] != processes[1]["groups"]["centers"]


def test_a_group_names_its_processes(processes):
    for rank, process in enumerate(processes):
        one, other = (0, 2) if rank % 2 == 0 else (1, 3)
        said = f"got {float(one)} in process {one}, {float(other)} in process {other}"
        assert process["groups"]["disagreement"] == f"ConfigError: margin: expected the same in all processes, {said}"


def test_a_stranger_to_a_group_is_refused(processes):
    for process in processes:
        assert process["groups"]["outsider"] == (
            "DTypeError: group: expected a ProcessGroup that this process belongs to, or None, got -100"
        )


@pytest.fixture
def group():
    """The process group of one process that every program may have."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


class _Config:
    num_generators, embed_dim = 2, 3


EYE, LABELS = torch.eye(2, 3), torch.tensor([0, 1])
LOSSES = {
    "dfacc": lambda **options: DFACCLoss(2, 3, **options),
    "vcc": lambda **options: ContrastiveCenterLoss(2, 3, **options),
    "cpc": CPCLoss,
    "cmc": CMCLoss,
    "kl": LanguageAlignmentLoss,
    "objective": lambda **options: BMRLObjective(_Config, **options),
    "dfacc_loss": lambda **options: dfacc_loss(EYE, LABELS, EYE, **options),
    "dfacc_terms": lambda **options: dfacc_terms(EYE, LABELS, EYE, **options),
    "contrastive_center_loss": lambda **options: contrastive_center_loss(EYE, LABELS, EYE, **options),
    "contrastive_loss": lambda **options: contrastive_loss(EYE, EYE, **options),
    "language_alignment_loss": lambda **options: language_alignment_loss(EYE, EYE, **options),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_group_is_checked(group, name):
    LOSSES[name](gather=True, group=group)
    with pytest.raises(ConfigError, match=r"^group: expected None without gather=True, got a ProcessGroup$"):
        LOSSES[name](group=group)
    with pytest.raises(DTypeError, match=r"^group: expected a ProcessGroup that this process belongs to, or None, got"):
        LOSSES[name](gather=True, group="gloo")


def test_a_loss_with_a_group_can_be_copied(group):
    loss = DFACCLoss(2, 3, gather=True, group=group)
    assert torch.equal(copy.deepcopy(loss)(EYE, LABELS), loss(EYE, LABELS))
