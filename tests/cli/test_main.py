"""The command line as a person meets it: real processes, exit codes, one clear line for what went wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from bmrl.cli.commands import export as export_command
from bmrl.cli.main import main
from bmrl.export.verification import Verification
from bmrl.models import load_model

if TYPE_CHECKING:
    from pathlib import Path

SMALL = [
    "image_size=64",
    "embed_dim=16",
    "*.channels=[4,8,8]",
    "*.convs_per_stage=[1,1,1]",
    "*.mlp_dim=16",
    "*.num_blocks=1",
]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bmrl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=240, check=False)


def failure(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a failed command."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("bmrl: error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per generator, as a forensics team would bring it: other sizes, modes and formats, one broken file."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for name in ("real_camera", "stylegan2", "simswap"):
        (folder / name).mkdir()
        for index in range(20):
            level = {"real_camera": 60, "stylegan2": 120, "simswap": 180}[name]
            image = Image.fromarray(rng.normal(level, 15, (80, 70, 3)).clip(0, 255).astype(np.uint8))
            suffix = ("png", "jpg", "webp")[index % 3]
            image.convert("L" if index % 5 == 0 else "RGB").save(folder / name / f"{name}_{index}.{suffix}")
    (folder / "stylegan2" / "broken.jpg").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What ``bmrl import`` and ``bmrl train`` make of it: the data folder and the model."""
    folder = tmp_path_factory.mktemp("work")
    imported = run("import", "folder", faces, "--out", folder / "data", "--unseen", "simswap")
    assert imported.returncode == 0, imported.stderr
    assert "skipped 1 images" in imported.stdout
    assert "skipped stylegan2/broken.jpg: " in imported.stderr
    settings = [part for setting in SMALL for part in ("--set", setting)]
    made = run(
        "train", "--data", folder / "data", "--out", folder / "model", "--epochs", 1, "--device", "cpu", *settings
    )
    assert made.returncode == 0, made.stderr
    assert "no parsing maps found; the parsing branch is off" in made.stderr
    assert "parsing branch off" in made.stdout
    return folder / "data", folder / "model"


def test_evaluate_writes_a_report(trained, tmp_path):
    data, model = trained
    result = run("evaluate", model, "--data", data, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    for line in ("Seen accuracy", "AUROC seen/unseen", "Seen accepted at 0.7", "Unseen rejected at 0.9"):
        assert line in result.stdout
    assert json.loads((tmp_path / "metrics.json").read_text())["seen"]["num_images"] == 8
    assert "<html" in (tmp_path / "report.html").read_text()


def test_attribute_goes_on_after_bad_images(trained, faces, tmp_path):
    _, model = trained
    photo = faces / "real_camera" / "real_camera_0.png"
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes((faces / "real_camera" / "real_camera_1.jpg").read_bytes()[:600])
    result = run("attribute", model, photo, text, truncated, tmp_path / "missing.png", photo)
    assert result.returncode == 1
    assert result.stdout.count("real_camera_0.png") == 2
    errors = result.stderr.splitlines()
    assert [line.startswith("bmrl: error: ") for line in errors] == [True] * 3
    for name, line in zip(("text.jpg", "truncated.jpg", "missing.png"), errors, strict=True):
        assert name in line


def test_attribute_json_and_folders(trained, faces):
    _, model = trained
    result = run("attribute", model, faces / "simswap", "--json", "--threshold", 0.99)
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout)
    assert len(answers) == 20
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5) for answer in answers)
    assert {answer["threshold"] for answer in answers} == {0.99}


@pytest.mark.server
def test_export_serve_and_attribute_over_the_wire(trained, faces, tmp_path):
    _, model = trained
    exported = run("export", model, "--format", "triton", "--out", tmp_path / "repository")
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.startswith(f"wrote {tmp_path / 'repository'}: answers as the model does to 16 patterns;")
    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    options = [
        part
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)
        for part in (f"--{name}-port", str(port))
    ]
    command = [sys.executable, "-m", "bmrl", "serve", str(tmp_path / "repository"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline().startswith("ready: ")
            remote = run("attribute", "--server", f"127.0.0.1:{ports[1]}", faces / "stylegan2", "--json")
            busy = run("serve", tmp_path / "repository", *options)
        finally:
            server.terminate()
        assert server.wait(60) == 0
    assert f"{ports[0]}" in failure(busy)
    local = run("attribute", model, faces / "stylegan2", "--json")
    assert remote.returncode == local.returncode == 1  # the broken file
    assert "broken.jpg" in remote.stderr
    pairs = list(zip(json.loads(remote.stdout), json.loads(local.stdout), strict=True))
    assert len(pairs) == 21
    for one, other in pairs:
        assert one["source"] == other["source"]
        if "broken.jpg" in one["source"]:
            assert one == other
            continue
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_export_torchscript(trained, tmp_path):
    _, model = trained
    result = run("export", model, "--format", "torchscript", "--out", tmp_path / "model.pt")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model.pt").stat().st_size > 10_000
    assert result.stdout.startswith(
        f"wrote {tmp_path / 'model.pt'}: answers as the model does to 16 patterns; --images"
    )


def test_an_export_says_how_many_decisions_it_changes(trained, tmp_path, capsys):
    data, model = trained
    for form in ("torchscript", "torchscript-bf16"):
        out = tmp_path / f"{form}.pt"
        assert main(["export", str(model), "--format", form, "--images", str(data), "--out", str(out)]) == 0
        found = json.loads((tmp_path / "artifact.json").read_text())["artifacts"][out.name]["verification"]
        changed, images = found["decisions_changed"], found["images"]
        expected = (
            f"as the model about all {images} images"
            if not changed
            else f"from the model about {changed} of {images} images"
        )
        line = capsys.readouterr().out
        assert expected in line
        assert f"at most {found['probability_difference']:.2g}" in line


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (0, "decides as the model about all 598 images;"),
        (52, "decides differently from the model about 52 of 598 images;"),
    ],
)
def test_what_is_said_of_changed_decisions(changed, words):
    found = Verification(
        images=598, synthetic=False, batches=(1, 3, 64), probability_difference=0.2384, embedding_difference=0.02,
        score_difference=0.05, engine=None, top1_agreement=0.9727, decisions_changed=changed, probe={},
    )  # fmt: skip
    shown = "the most probable class is the same for 97.3%, probabilities differ by at most 0.24"
    assert export_command._in_words(found) == f"{words} {shown}"


def test_bad_input_is_one_line_and_exit_code_1(trained, tmp_path, capsys):
    data, model = trained
    assert "nowhere" in failure(run("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "m"))

    def failed(*arguments):
        """What a command says; in this process, as the others do not differ from the first in how they end."""
        assert main([str(argument) for argument in arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("bmrl: error: ")
        return line

    assert "new or empty folder" in failed("train", "--data", data, "--out", model)
    assert "config.json" in failed("attribute", tmp_path, "photo.jpg")
    (tmp_path / "manifest.csv").write_text("path,generator\n")
    assert "expected one column manipulation" in failed("train", "--data", tmp_path, "--out", tmp_path / "m")
    for name, expected in (("edge", "fields by name"), ("head.norm", "true or false")):
        line = failed("train", "--data", data, "--out", tmp_path / "m", "--set", f"{name}=False")
        assert re.search(rf"{name}: expected .*{expected}, got 'False'", line)
    line = failed("train", "--data", data, "--out", tmp_path / "m", "--model", model, "--preset", "tiny")
    assert "preset: expected none together with model" in line
    (tmp_path / "empty").mkdir()
    assert "expected images in this folder, got none" in failed("attribute", model, tmp_path / "empty")
    assert "depth" in failed("train", "--data", data, "--out", tmp_path / "m", "--set", "depth=3")
    assert "images_per_generator" in failed("simulate", tmp_path / "s", "--images-per-generator", 0)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "fly",
        "train",
        "train --data x --out y --preset huge",
        "train --data x --out y --set edge",
        "train --data x --out y --resume --epochs 3",
        "attribute model",
        "export model --all --images x --device cuda --out y",
        "export model --format onnx --ensemble --out y",
    ],
)
def test_wrong_usage_is_exit_code_2(arguments):
    result = run(*arguments.split())
    assert result.returncode == 2
    assert result.stderr.startswith("usage: bmrl")


COMMANDS = (
    "demo",
    "simulate",
    "import",
    "train",
    "calibrate",
    "enroll",
    "evaluate",
    "compare",
    "attribute",
    "export",
    "serve",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: bmrl {command} ")


def test_help_names_every_command():
    result = run("--help")
    assert result.returncode == 0
    assert [command for command in COMMANDS if not re.search(rf"^    {command}\b", result.stdout, re.M)] == []
    assert run("--version").stdout.startswith("bmrl 0.")


def test_training_goes_on_from_a_model_folder(trained, tmp_path):
    data, model = trained
    options = [
        "--epochs",
        1,
        "--learning-rate",
        1e-9,
        "--set",
        "weight_decay=0",
        "--set",
        "keep=last",
        "--device",
        "cpu",
    ]
    result = run("train", "--data", data, "--out", tmp_path / "further", "--model", model, *options)
    assert result.returncode == 0, result.stderr
    before, after = load_model(model).state_dict(), load_model(tmp_path / "further").state_dict()
    weights = [name for name in before if name.endswith("weight") and before[name].dim() > 1]
    assert weights
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in weights)
