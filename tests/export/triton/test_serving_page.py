"""The page docs/serving.md: its commands, run one after the other as they are there, and its Python."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bmrl import Attributor
from bmrl.export.triton.repository.checks import check_model
from bmrl.inference.attribution import format_table
from bmrl.models import load_model, save_model

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
COMMANDS = BLOCKS[0][1].splitlines()
EXPORTING, ASKING = (text for language, text in BLOCKS if language == "python")
NAMES = ["export", "repository", "serve", "attribute", "ask"]


def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """Run the five commands in a folder with a model, images and a photo; return the folder, port and outputs."""
    folder = tmp_path_factory.mktemp("page")
    save_model(model, folder / "model")
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for index in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(folder / "data" / f"{index}.png")
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).save(folder / "photo.jpg")
    shutil.copytree(ROOT / "examples", folder / "examples")
    http, grpc, metrics = free_ports()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    outputs = {}
    server = None
    try:
        for name, command in zip(NAMES, COMMANDS, strict=True):
            words = shlex.split(command.replace("127.0.0.1:8001", f"127.0.0.1:{grpc}"))
            if name == "serve":
                words += ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
                server = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
                outputs[name] = server.stdout.readline()
                assert outputs[name].startswith("ready: "), outputs
                continue
            run = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
            )
            assert run.returncode == 0, run.stderr
            outputs[name] = run.stdout
        yield folder, grpc, outputs
    finally:
        if server is not None:
            server.terminate()
            assert server.wait(60) == 0
            server.stdout.close()


def test_five_commands_lead_to_the_answer_of_a_server(page):
    folder, port, outputs = page
    (local,) = Attributor(load_model(folder / "model"))([folder / "photo.jpg"])
    assert outputs["serve"].startswith(f"ready: gRPC 127.0.0.1:{port}, ")
    assert outputs["attribute"] == format_table([dataclasses.replace(local, source="photo.jpg")]) + "\n"
    best = max(local.probabilities, key=local.probabilities.get)
    verdict = "seen" if local.seen else "unseen"
    assert outputs["ask"] == f"photo.jpg: {best}, {local.probability:.3f}, {verdict}\n"


def test_the_python_of_the_page_runs(page, model, images, eager):
    folder, port, _ = page
    values = {"images": images, "photo_bytes": (folder / "photo.jpg").read_bytes()}
    exec(compile(ASKING.replace("127.0.0.1:8001", f"127.0.0.1:{port}"), "docs/serving.md", "exec"), values)
    torch.testing.assert_close(torch.from_numpy(values["probabilities"]), eager[0], rtol=0, atol=1e-4)
    assert values["answer"].probabilities == pytest.approx(
        Attributor(model)([values["photo_bytes"]])[0].probabilities, abs=1e-4
    )


def test_the_python_of_the_page_exports(model, images, eager, tmp_path, monkeypatch, capsys):
    save_model(model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    values = {"images": images}
    exec(compile(EXPORTING, "docs/serving.md", "exec"), values)
    answer = tuple(values[name] for name in ("probabilities", "embeddings", "scores"))
    torch.testing.assert_close(answer, eager, rtol=0, atol=1e-4)
    assert check_model("repository")[0].name == "model.onnx"
    assert [row.error for row in values["comparison"].rows if row.engine is None] == [None, None]
    assert "| torchscript |" in capsys.readouterr().out


def test_the_diagram_shows_the_repository(page):
    folder, _, _ = page
    shown = set(re.findall(r"[├└]── (\S+)", PAGE))
    written = {path.name + "/" * path.is_dir() for path in (folder / "repository").glob("*")}
    written |= {path.name + "/" * path.is_dir() for path in (folder / "repository" / "bmrl").rglob("*")}
    assert shown == {name for name in written if "pycache" not in name and not name.endswith(".pyc")}


@pytest.mark.parametrize("message", ["nvidia-pytriton: not installed", "expected a free port", "expected the content"])
def test_messages_in_the_table_are_what_the_library_says(message):
    assert message in PAGE
    assert any(message in path.read_text(encoding="utf-8") for path in (ROOT / "bmrl").rglob("*.py"))
