"""``bmrl calibrate`` and what ``bmrl attribute`` then says."""

from __future__ import annotations

import json

import pytest

import bmrl
from bmrl.cli.main import main
from tests.training.conftest import PLAIN, write_data

ASKED = ["--accept", "0.9", "--typical", "0.7", "--max-error", "0.4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    write_data(folder / "data", parsing=False)
    bmrl.train(folder / "data", folder / "model", model_changes=PLAIN, recipe_changes={"epochs": 1}, progress=False)
    return folder


def test_fits_saves_and_tells(trained, capsys):
    before = (trained / "model" / "model.safetensors").read_bytes()
    image = next((trained / "data" / "camera").glob("test_*.png"))
    arguments = ["calibrate", str(trained / "model"), "--data", str(trained / "data"), "--alterations", "half"]
    assert main([*arguments, "--score", "energy", *ASKED]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["calibration", "pictures", "named", "rightly", "named", "wrongly", "uncertain", "called",
                              "unseen"]  # fmt: skip
    assert [line.split("  ")[0] for line in out[1:3]] == ["as it is", "half"]
    for line in out[1:3]:
        assert sum(float(cell) for cell in line.replace("%", "").split()[-4:]) == pytest.approx(100, abs=0.3)
    assert out[3].endswith("decision.safetensors: 12 pictures, score energy")
    assert (trained / "model" / "model.safetensors").read_bytes() == before
    assert main(["attribute", str(trained / "model"), str(image), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["verdict"] in ("seen", "uncertain", "unseen")
    assert answer["reason"].startswith(("score ", "probability "))
    assert main(["attribute", str(trained / "model"), str(image), "--format", "csv", "--max-error", "0.9"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("source,verdict,generator,probability,score,seen,threshold,reason,")
    assert row.startswith(str(image))
    assert main(["attribute", str(trained / "model"), str(image), "--json", "--threshold", "0"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["threshold"]) == ("seen", 0.0)


def test_what_is_wrong_is_said(trained, capsys):
    data, model = str(trained / "data"), str(trained / "model")
    assert main(["calibrate", model, "--data", data, "--accept", "0.95"]) == 1
    assert capsys.readouterr().err.startswith(
        "bmrl: error: accept: expected 19 calibration pictures or more for 0.95, got 12"
    )
    assert main(["calibrate", model, "--data", data, "--score", "luck", *ASKED]) == 1
    assert "score: expected 'max_probability' or" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["attribute", "--server", "127.0.0.1:1", "a.png", "--max-error", "0.1"])
    assert "--max-error: expected none with --server" in capsys.readouterr().err
