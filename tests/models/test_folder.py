from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bmrl.errors import MissingFileError, ModelFolderError
from bmrl.models import load_model, save_model

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture
def saved(make_model, tmp_path):
    return save_model(make_model(), tmp_path / "model")


def test_round_trip(make_model, saved):
    model = make_model()
    loaded = load_model(saved)
    assert loaded.config == model.config
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(IMAGES).logits, model(IMAGES).logits)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1  # whoever reads one reads both


def test_saving_keeps_other_files_and_replaces_its_own(make_model, saved):
    (saved / "notes.txt").write_text("mine")
    save_model(make_model(edge=False), saved)
    assert (saved / "notes.txt").read_text() == "mine"
    assert not load_model(saved).config.edge


def test_missing(saved, tmp_path):
    with pytest.raises(MissingFileError, match=r"model: expected a folder with config.json .*, got .*/nowhere"):
        load_model(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model: expected .*model.safetensors, got no such file"):
        load_model(saved)
    (saved / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"model: expected .*config.json, got no such file"):
        load_model(saved)


def change_config(folder, change) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_another_version(saved):
    change_config(saved, lambda content: content.update(format=2, bmrl_version="9.0"))
    with pytest.raises(ModelFolderError, match=r"config.json: expected format 1 .*, got format 2 written by bmrl 9.0"):
        load_model(saved)


def test_damaged_config(saved):
    change_config(saved, lambda content: content["model"].update(depth=3))
    with pytest.raises(ModelFolderError, match=r"config.json: expected a model of bmrl .*, got depth: expected one of"):
        load_model(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(ModelFolderError, match=r"config.json: expected the keys format, bmrl_version and model"):
        load_model(saved)
    (saved / "config.json").write_text("null")
    with pytest.raises(ModelFolderError, match=r"config.json: expected the keys format, .*, got NoneType"):
        load_model(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match=r"config.json: expected JSON, got"):
        load_model(saved)


def test_damaged_weights(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFolderError, match=r"model.safetensors: expected safetensors weights, got a damaged file"):
        load_model(saved)


def test_weights_of_another_model(saved):
    path = saved / "model.safetensors"
    tensors = load_file(path)
    tensors["head.2.bias"] = torch.zeros(4)
    save_file(tensors, path)
    with pytest.raises(ModelFolderError, match=r"expected head.2.bias \(3,\) as config.json says, got \(4,\) \(1 ten"):
        load_model(saved)
