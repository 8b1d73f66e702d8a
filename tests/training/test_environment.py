"""Training takes nothing from the environment or the working folder that it was not asked to."""

from __future__ import annotations

import os

import pytest
import torch

from bmrl.cli.demo import demo
from bmrl.errors import ConfigError
from bmrl.evaluation.comparison import compare
from bmrl.training import train

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[1-2]",
    "SLURM_RESTART_COUNT": "1",
}
ENVIRONMENTS = {
    "SLURM": SLURM,
    "SLURM, one task": SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
    "torchrun, one process": {
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    },
    "LSF": {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "/none", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4"},
    "MPI": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "PMI_SIZE": "4"},
    "rank without a world": {"RANK": "3", "LOCAL_RANK": "3", "NODE_RANK": "2"},
    "Lightning's defaults": {
        "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
        "PL_TRAINER_MAX_STEPS": "1",
        "PL_TRAINER_FAST_DEV_RUN": "true",
        "PL_TRAINER_GRADIENT_CLIP_VAL": "0.001",
        "PL_TRAINER_DEVICES": "2",
        "PL_TRAINER_BAREBONES": "true",
        "PL_GLOBAL_SEED": "9",
    },
    "no temporary folder": {"TMPDIR": "/nonexistent/folder"},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_environment_changes_nothing(data, plain_run, runs, run_code, tmp_path, environment):
    elsewhere = tmp_path / "working"
    elsewhere.mkdir()
    torch.save({"state_dict": {}}, elsewhere / "hpc_ckpt_1.ckpt")
    process = run_code(runs.call(data, tmp_path / "run"), cwd=elsewhere, **environment)
    assert process.wait() == 0, process.output
    assert runs.same(tmp_path / "run", plain_run)
    metrics = "log/version_0/metrics.csv"
    assert (tmp_path / "run" / metrics).read_text() == (plain_run / metrics).read_text()
    assert [path.name for path in elsewhere.iterdir()] == ["hpc_ckpt_1.ckpt"]


def test_signals_of_a_cluster_write_nothing(data, runs, run_code, tmp_path):
    code = "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('asked'))\n"
    out = tmp_path / "run"
    process = run_code(code + runs.call(data, out, epochs=8), **SLURM)
    process.wait_for((out / "checkpoints" / "last.ckpt").is_file)
    os.kill(process.pid, 10)
    assert process.wait() == 0
    assert "asked" in process.output
    assert list(tmp_path.rglob("hpc_ckpt*")) == []


@pytest.mark.parametrize("start", [train, compare, lambda _, out: demo(out)], ids=["train", "compare", "demo"])
def test_refuses_to_be_one_of_several_processes(data, tmp_path, monkeypatch, start):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE: expected one process, got 2 \(as torchrun starts them\)"):
        start(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_process_of_torchrun_says_so_in_one_line(data, run_code, tmp_path):
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu"]
    code = f"from bmrl.cli.main import main\nraise SystemExit(main({arguments!r}))"
    for rank in ("0", "1"):
        process = run_code(code, WORLD_SIZE="2", RANK=rank, LOCAL_RANK=rank, TORCHELASTIC_RUN_ID="none")
        assert process.wait() == 1
        (line,) = process.output.splitlines()
        assert line.startswith("bmrl: error: WORLD_SIZE: expected one process, got 2")
    assert not (tmp_path / "run").exists()
