"""``bmrl enroll`` and what ``bmrl attribute`` says from then on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import bmrl
from bmrl.cli.main import main
from tests.training.conftest import PLAIN, write_data


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enrolled")
    write_data(folder / "data", parsing=False)
    bmrl.train(folder / "data", folder / "model", model_changes=PLAIN, recipe_changes={"epochs": 1}, progress=False)
    asked = {"accept": 0.9, "typical": 0.7, "max_error": 0.4}
    bmrl.calibrate(folder / "model", folder / "data", score="energy", alterations=["half"], **asked)
    rng = np.random.default_rng(0)
    (folder / "new").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "new" / f"{number}.png")
    (folder / "new" / "clip.mp4").write_bytes(b"")
    return folder


def test_adds_a_name(calibrated, tmp_path, capsys):
    model, new = calibrated / "model", calibrated / "new"
    before = (model / "model.safetensors").read_bytes()
    options = ["--manipulation", "FS", "--architecture", "diffusion", "--out", str(tmp_path / "more")]
    assert main(["enroll", str(model), "Noise 1", str(new), *options]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("6 pictures of Noise 1, each answered by what was learned from the others: ")
    assert sum(int(word) for word in lines[0].split(": ")[1].replace(",", "").split() if word.isdigit()) in (6, 7)
    assert lines[1].startswith("pictures of the other generators that would be named Noise 1: ")
    assert lines[2] == f"wrote {tmp_path / 'more'}: 4 generators"
    assert "skipped 1 .mp4" in said.err
    assert (model / "model.safetensors").read_bytes() == before
    assert main(["attribute", str(tmp_path / "more"), str(new / "0.png"), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert "Noise 1" in answer["probabilities"]
    assert main(["enroll", str(tmp_path / "more"), "Noise 2", str(new)]) == 0  # in its place
    assert bmrl.load_model(tmp_path / "more").config.num_generators == 5


def test_what_is_wrong_is_said_and_changes_nothing(calibrated, tmp_path, capsys):
    model = calibrated / "model"
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    (tmp_path / "few").mkdir()
    assert main(["enroll", str(model), "x", str(tmp_path / "few")]) == 1
    err = capsys.readouterr().err
    assert "expected images in this folder, got none" in err
    assert "bmrl: error: pictures: expected at least 5, got 0" in err
    assert main(["enroll", str(model), "camera", str(calibrated / "new")]) == 1
    assert "bmrl: error: name: expected none of the model's classes, got 'camera'" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
