"""What works, and what is said, where nothing but the base packages is installed."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bmrl
from bmrl._extras import EXTRAS
from bmrl.cli.commands import COMMANDS

PACKAGE = Path(bmrl.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]


def closure(requirements):
    """Return the installed distributions that these requirements bring, by name."""
    found, waiting = {}, [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # such as CUDA's libraries, which a CPU build has no use for
            continue
        waiting += map(Requirement, found[name].requires or ())
    return found


def link(distribution, target):
    """Link the files of a distribution into another site-packages; a folder of its own as one."""
    for file in distribution.files or ():
        top = Path(file.parts[0])
        source = Path(distribution.locate_file(top))
        if top.name in ("..", "__pycache__") or not source.exists():
            continue
        place = target / top
        if source.is_dir() and not (source / "__init__.py").exists() and source.suffix not in (".dist-info", ".libs"):
            place = target / Path(*file.parts)  # several distributions share a namespace
            source = Path(distribution.locate_file(file))
            place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink() and not place.exists():
            place.symlink_to(source)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return the Python of an environment that has the base packages, what they need, and bmrl."""
    home = tmp_path_factory.mktemp("base")
    venv.create(home, symlinks=True, with_pip=False)
    (packages,) = (home / "lib").glob("python*/site-packages")
    for distribution in closure(PROJECT["dependencies"]).values():
        link(distribution, packages)
    (packages / "bmrl").symlink_to(PACKAGE)
    return home / "bin" / "python"


@pytest.fixture(scope="module")
def python(base, environment, tmp_path_factory):
    """Run a program there."""
    clean = {name: value for name, value in environment.items() if name != "PYTHONPATH"}

    def run_python(program, *arguments):
        return subprocess.run(
            [base, "-c", program, *map(str, arguments)],
            env=clean,
            cwd=tmp_path_factory.mktemp("work"),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run_python


WORKS = """
import sys
from pathlib import Path
import torch
from PIL import Image
import bmrl, bmrl.losses, bmrl.ops, bmrl.encoders
from bmrl.cli.main import main
for name in ("torchvision", "lightning", "matplotlib", "sklearn", "yaml", "onnx", "tritonclient", "scipy"):
    try:
        __import__(name)
    except ImportError:
        pass
    else:
        sys.exit(f"{name} is there: this is no base install")
sizes = {"image_size": 32, "embed_dim": 16, "*.channels": (4, 8), "*.convs_per_stage": (1, 1), "*.num_blocks": 1,
         "*.num_heads": 2, "*.mlp_dim": 16, "language": None}
model = bmrl.build_model(bmrl.models.presets.tiny(num_generators=2, **sizes))
bmrl.save_model(model, "model")
bmrl.load_model("model")
images = torch.rand(2, 3, 32, 32)
assert bmrl.ops.sobel(images).shape == (2, 1, 32, 32)
loss = bmrl.losses.DFACCLoss(num_generators=2, embed_dim=16)
loss(model(images).embedding, torch.tensor([0, 1])).backward()
assert bmrl.encoders.NoiseEncoder(32, embed_dim=16, mlp_dim=16)(images).shape == (2, 16)
Path("faces").mkdir()
Image.new("RGB", (40, 40), "red").save("faces/a.png")
assert main(["attribute", "model", "faces", "--json"]) == 0
assert main(["export", "model", "--format", "torchscript", "--out", "model.pt"]) == 0
(answer,) = bmrl.Attributor("model")(["faces/a.png"])
assert answer.probabilities
"""

HELP = """
import sys
from bmrl.cli.main import main
for command in sys.argv[1:]:
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert end.code == 0
"""

NEEDS = """
import json, sys
from bmrl.cli.main import main
print(json.dumps([main(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def test_the_base_install_saves_exports_and_attributes(python):
    done = python(WORKS)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "wrote model.pt" in done.stdout


def test_help_of_every_command(python):
    commands = [command.name for command in COMMANDS]
    shown = python(HELP, *commands)
    assert shown.returncode == 0, shown.stderr
    for command in commands:
        assert f"usage: bmrl {command} " in shown.stdout


def test_a_command_names_the_extra_it_needs(python, model, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "families.yaml").write_text("{}")
    (tmp_path / "src" / "real_x").mkdir(parents=True)
    data, out, yaml = str(tmp_path / "data"), str(tmp_path / "out"), str(tmp_path / "families.yaml")
    expected = {
        "train": ["train", "--data", data, "--out", out],
        "evaluate": ["evaluate", str(model), "--data", data, "--out", out],
        "compare": ["compare", "--data", data, "--out", out],
        "demo": ["demo", "--out", out],
        "import": ["import", "folder", str(tmp_path / "src"), "--out", out, "--families", yaml],
        "export": ["export", str(model), "--format", "onnx", "--out", str(tmp_path / "model.onnx")],
        "serve": ["attribute", "--server", "127.0.0.1:1", "a.png"],
    }
    said = python(NEEDS, json.dumps(list(expected.values())))
    assert json.loads(said.stdout) == [1] * len(expected), said.stderr
    lines = said.stderr.splitlines()
    assert len(lines) == len(expected), said.stderr
    for name, line in zip(expected, lines, strict=True):
        extra = name if name in ("export", "serve") else "train"
        assert line.startswith("bmrl: error: ")
        assert f": not installed; it comes with the extra [{extra}] of bmrl (see README.md)" in line
    assert not Path(out).exists()


def extras():
    """By distribution, the extras of pyproject.toml that name it."""
    found = {}
    for extra, requirements in PROJECT["optional-dependencies"].items():
        for text in requirements:
            found.setdefault(canonicalize_name(Requirement(text).name), set()).add(extra)
    return found


def test_the_table_of_extras_is_that_of_pyproject():
    known = extras()
    assert {canonicalize_name(name): {extra} for name, extra in EXTRAS.values()} == known
    homes = importlib.metadata.packages_distributions()
    for module, (distribution, _) in EXTRAS.items():
        if module in homes:
            assert canonicalize_name(distribution) in {canonicalize_name(home) for home in homes[module]}


def test_every_error_names_the_extra_that_pyproject_does():
    known, seen = extras(), 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                package, *rest = node.args
                if isinstance(package, ast.Constant):
                    seen += 1
                    assert known[canonicalize_name(package.value)] == {rest[0].value}, path
    assert seen


def test_nobody_is_told_to_install_a_distribution_of_that_name():
    """The name is not registered on the package index."""
    for path in (*PACKAGE.rglob("*.py"), PACKAGE.parent / "README.md"):
        assert not re.search(r"pip install [^.\n]*\bbmrl\b", path.read_text()), path
