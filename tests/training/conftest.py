"""A data folder of three sources that a small network can separate: smooth, striped and noisy pictures."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 64
FAMILIES = {
    "camera": ("none", "none"),
    "stripes": ("EFS", "GAN"),
    "noise": ("FS", "diffusion"),
    "checks": ("AM", "GAN"),
}


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    image = np.full((SIZE, SIZE, 3), rng.integers(60, 180, 3), dtype=np.float64)
    y, x = np.mgrid[:SIZE, :SIZE]
    if name == "stripes":
        image += 30 * (x % 4 < 2)[..., None]
    elif name == "noise":
        image += rng.normal(0, 25, image.shape)
    elif name == "checks":
        image += 30 * ((x // 2 + y // 2) % 2)[..., None]
    return image.clip(0, 255).astype(np.uint8)


def write_data(folder: Path, *, parsing: bool = True) -> Manifest:
    """Write 8 training, 4 validation and 4 test images per seen source, 4 test images per unseen one."""
    rng = np.random.default_rng(0)
    rows = []
    for name, (manipulation, architecture) in FAMILIES.items():
        seen = name != "checks"
        for split, count in (("train", 8), ("val", 4), ("test", 4)) if seen else (("test", 4),):
            for index in range(count):
                path = f"{name}/{split}_{index}.png"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(name, rng)).save(folder / path)
                if parsing:
                    file = folder / "parsing" / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 19, (SIZE, SIZE), dtype=np.uint8)).save(file)
                role = "seen" if seen else "unseen"
                rows.append(Row(path, name, manipulation, architecture, role, split, f"{name} {split} {index}"))
    manifest = Manifest(folder, tuple(rows))
    manifest.write()
    return manifest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, with parsing maps."""
    return write_data(tmp_path_factory.mktemp("data")).root


@pytest.fixture
def data_without_parsing(tmp_path: Path) -> Path:
    """The folder, without parsing maps."""
    return write_data(tmp_path / "data", parsing=False).root


@pytest.fixture
def small() -> dict[str, object]:
    """Changes that make the tiny preset smaller still."""
    return {
        "image_size": SIZE,
        "embed_dim": 16,
        "*.channels": (4, 8, 8),
        "*.convs_per_stage": (1, 1, 1),
        "*.mlp_dim": 16,
        "*.num_blocks": 1,
    }


class Process:
    """Code that runs in a separate process; see ``fork_server.py``."""

    def __init__(self, server: subprocess.Popen[str], code: str, output: Path, cwd: Path, environment: dict[str, str]):
        self._server, self._output = server, output
        request = {"code": code, "output": str(output), "cwd": str(cwd), "environment": environment}
        self.pid = self._ask(request)

    def _ask(self, request: dict[str, object]) -> int:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def wait(self) -> int:
        return self._ask({"wait": self.pid})

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; fail when the process has ended before."""
        while not condition():
            with contextlib.suppress(FileNotFoundError):
                assert "State:\tZ" not in Path(f"/proc/{self.pid}/status").read_text(), self.output
            time.sleep(0.002)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
    with subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def run_code(fork_server: subprocess.Popen[str], tmp_path: Path) -> Callable[..., Process]:
    """Start Python code in a separate process."""
    numbers = itertools.count()

    def start(code: str, *, cwd: Path = tmp_path, **environment: str) -> Process:
        output = tmp_path / f"output_{next(numbers)}.txt"
        return Process(fork_server, textwrap.dedent(code), output, cwd, environment)

    return start


PLAIN = {
    "image_size": SIZE,
    "embed_dim": 16,
    "*.channels": (4, 8, 8),
    "*.convs_per_stage": (1, 1, 1),
    "*.mlp_dim": 16,
    "*.num_blocks": 1,
    "edge": None,
    "noise": None,
    "parsing": None,
    "language": None,
    "*.dropout": 0.2,
}
"""Changes that make the tiny preset a model of one small branch."""
BRISK = {"epochs": 3, "batch_size": 8, "precision": "32-true", "keep": "best", "flip": True, "ema_decay": 0.5,
         "augmentation": {"compress": 0.5, "crop": 0.5, "noise": 0.5}}  # fmt: skip
"""Changes of the recipe that leave nothing out which a resumed run must continue."""


def training_call(
    data: Path, out: Path, *, resume: bool = False, model: dict[str, object] = PLAIN, **recipe: object
) -> str:
    """Return the code of a call of ``train``; the caller may wrap it."""
    settings = "" if resume else f", model_changes={model!r}, recipe_changes={BRISK | recipe!r}"
    return (
        "from bmrl.training import train\n"
        f"train({str(data)!r}, {str(out)!r}, resume={resume}, device='cpu', progress=False{settings})\n"
    )


@pytest.fixture(scope="session")
def plain_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of ``PLAIN`` and ``BRISK`` that nothing interrupted."""
    out = tmp_path_factory.mktemp("plain") / "run"
    train(data, out, model_changes=PLAIN, recipe_changes=BRISK, device="cpu", progress=False)
    return out


def same_model(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same model and the same objective, bit by bit."""
    names = ("model.safetensors", "objective.safetensors", "config.json")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.fixture(scope="session")
def runs() -> SimpleNamespace:
    """What the tests of whole runs share."""
    return SimpleNamespace(plain=PLAIN, brisk=BRISK, call=training_call, same=same_model)
