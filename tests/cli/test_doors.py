"""What is wrong with a command is said before its work begins, on one line.

In each case everything else is missing too, so that the error must come from the first thing that is checked.
"""

from __future__ import annotations

import os
import sys

import pytest

from bmrl.cli.main import main

FILE, FOLDER = "a-file", "a-folder"
LONG = "x" * 300

OUTPUTS = {
    "evaluate": "evaluate nowhere --data nowhere --out {out}",
    "train": "train --data nowhere --out {out}",
    "compare": "compare --data nowhere --out {out}",
    "import": "import folder nowhere --out {out}",
    "simulate": "simulate {out} --image-size 1",
    "export --all": "export nowhere --all --images nowhere --out {out}",
    "export triton": "export nowhere --format triton --out {out}",
    "demo": "demo --out {out}",
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).touch()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "dangling").symlink_to("nothing")


def failure(capsys, arguments):
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line.removeprefix("bmrl: error: ")


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("out", [FILE, f"{FILE}/below", "/proc/none", "dangling", LONG])
def test_a_folder_that_can_not_be_written(capsys, command, out):
    before = sorted(os.listdir())
    line = failure(capsys, OUTPUTS[command].format(out=out).split())
    assert line.startswith(("out: expected a folder", "folder: expected a folder"))
    assert out.split("/")[0] in line
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("out", [FOLDER, f"{FILE}/below", "missing/below.pt", "/proc/none.pt", LONG])
def test_a_file_that_can_not_be_written(capsys, out):
    line = failure(capsys, ["export", "nowhere", "--format", "torchscript", "--out", out])
    assert "expected a file" in line or "expected an existing parent folder" in line or "can be written" in line
    assert out.split("/")[0] in line


def test_a_file_whose_name_is_no_utf8(capsys):
    line = failure(capsys, ["export", "nowhere", "--format", "torchscript", "--out", "s\udcff.pt"])
    assert line == "out: expected a path in UTF-8, got 's\\udcff.pt'"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("evaluate nowhere --data nowhere --out o --thresholds 7", "thresholds: expected 0 .. 1, got 7.0"),
        ("evaluate nowhere --data nowhere --out o --thresholds .5 nan", "thresholds: expected 0 .. 1, got nan"),
        ("evaluate nowhere --data nowhere --out o --batch-size 0", "batch_size: expected an integer >= 1, got 0"),
        ("attribute nowhere a.png --threshold -1", "threshold: expected 0 .. 1, got -1.0"),
        ("attribute nowhere a.png --batch-size 0", "batch_size: expected an integer >= 1, got 0"),
        ("attribute m a.png --device cuda:99", "device: expected auto or a device of PyTorch that is there"),
        ("attribute --server 127.0.0.1:1 a.png --threshold 7", "threshold: expected 0 .. 1, got 7.0"),
        ("serve nowhere --probe-interval 0", "probe_interval: expected > 0, got 0.0"),
        ("serve nowhere --probe-interval nan", "probe_interval: expected > 0, got nan"),
    ],
)  # fmt: skip
def test_options_are_looked_at_first(capsys, arguments, expected):
    before = sorted(os.listdir())
    assert failure(capsys, arguments.split()).startswith(expected)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("module", "package"), [("jinja2", "Jinja2"), ("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")]
)
def test_evaluate_asks_first_for_what_the_report_needs(capsys, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    line = failure(capsys, ["evaluate", "nowhere", "--data", "nowhere", "--out", "o"])
    assert line.startswith(f"{package}: not installed; it comes with the extra [train] of bmrl")
    assert not os.path.exists("o")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "", "--data", "d", "--out", "o"],
        ["evaluate", "m", "--data", "", "--out", "o"],
        ["evaluate", "m", "--data", "d", "--out", ""],
        ["attribute", "", "a.png"],
        ["train", "--data", "d", "--out", ""],
        ["train", "--data", "d", "--out", "o", "--model", ""],
        ["export", "", "--format", "onnx", "--out", "o"],
        ["export", "--format", "triton", "--out", "o"],
        ["export", "m", "--artifact", "a.onnx", "--format", "triton", "--out", "o"],
        ["export", "--artifact", "a.onnx", "--format", "onnx", "--out", "o"],
        ["export", "--artifact", "a.onnx", "--all", "--images", "i", "--out", "o"],
        ["export", "--artifact", "a.onnx", "--format", "triton", "--images", "i", "--out", "o"],
        ["export", "--artifact", "a.onnx", "--format", "triton", "--graph-format", "onnx", "--out", "o"],
        ["attribute", "m", "a.png", "--device", "gpu:x"],
        ["attribute", "m", "a.png", "--json", "--format", "csv"],
        ["attribute", "--server", "127.0.0.1:1", "a.png", "--batch-size", "32"],
        ["attribute", "--server", "127.0.0.1:1", "a.png", "--device", "cpu"],
        ["train", "--data", "d", "--out", "o", "--device", "tpu"],
        ["train", "--data", "d", "--out", "o", "--epochs", "3", "--set", "epochs=5"],
        ["train", "--data", "d", "--out", "o", "--set", "edge=false", "--set", "edge=true"],
        ["train", "--data", "d", "--out", "o", "--set", "objective.margin=1", "--set", "objective.margin=1"],
    ],
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments)
    assert "usage: bmrl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "memory: expected enough for this, got: no more"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory: expected enough for this, got: "),
        (OSError(28, "No space left on device", "x/y"), "x/y: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "'utf-8' codec can't encode"),
        (RecursionError("maximum recursion depth exceeded"), "maximum recursion depth exceeded"),
    ],
)  # fmt: skip
def test_what_a_machine_refuses_is_one_line(capsys, monkeypatch, error, line):
    import bmrl.data.simulated

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(bmrl.data.simulated, "simulate", refuse)
    assert failure(capsys, ["simulate", "s"]).startswith(line)


def test_a_bug_keeps_its_traceback(monkeypatch):
    import bmrl.data.simulated

    monkeypatch.setattr(bmrl.data.simulated, "simulate", lambda *_, **__: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        main(["simulate", "s"])
