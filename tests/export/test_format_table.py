"""The table of formats is the one place that knows them: an entry and a writer are enough for a new one."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from bmrl.cli.main import main
from bmrl.errors import BMRLError, ExportError
from bmrl.export import FORMATS, Artifact, compare_formats, export_model, load_artifact, write_triton_repository
from bmrl.export.artifact import engines_of
from bmrl.export.formats import ENGINES, WRITERS
from bmrl.export.standalone.artifact_runtime import LOADERS
from bmrl.export.triton.repository.backends import BACKENDS
from bmrl.export.triton.repository.checks import check_model
from bmrl.models import save_model

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FORMATS)
def test_an_entry_names_a_writer_a_loader_and_its_engines(name):
    entry = FORMATS[name]
    module, _, function = entry.writer.partition(":")
    writer = importlib.import_module(f"{WRITERS}.{module}")
    for one in (function, entry.check):
        assert one is None or callable(getattr(writer, one))
    assert entry.kind in LOADERS
    assert entry.engines == engines_of(entry.kind)
    assert set(entry.engines) <= set(ENGINES)
    assert entry.suffix.startswith(".")
    assert entry.summary


def test_every_loader_has_a_format_and_every_backend_a_default_that_it_runs():
    assert set(LOADERS) == {entry.kind for entry in FORMATS.values()}
    assert set(BACKENDS["python"].kinds) == set(LOADERS)
    for backend in BACKENDS.values():
        assert FORMATS[backend.format].kind in backend.kinds


def test_the_tables_need_no_pytorch():
    """So that the command line, which takes its choices from them, answers ``--help`` at once."""
    code = "import bmrl.export.formats, bmrl.export.triton.repository.backends, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_writers_are_imported_by_the_table_alone():
    for file in (ROOT / "bmrl").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert WRITERS not in text.replace(f":mod:`{WRITERS}`", "") or file.name == "formats.py", file


def write(job, path):
    """Write a format of a test: TorchScript in a file with another suffix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(job.graph, job.example(), check_trace=False)
    torch.jit.save(graph, str(path), _extra_files={"artifact.json": job.embedded})


def check(engine):
    if engine is None:
        raise ExportError("toolbox: expected a toolbox, got none")


@pytest.fixture
def toolbox(monkeypatch):
    """A format that was not there before: one entry, and a module with its writer."""
    monkeypatch.setitem(sys.modules, f"{WRITERS}.toolbox", sys.modules[__name__])
    entry = dataclasses.replace(FORMATS["torchscript"], suffix=".box", writer="toolbox:write", summary="of a test")
    monkeypatch.setitem(FORMATS, "toolbox", entry)
    return entry


def test_one_entry_makes_a_format(toolbox, model, images, eager, tmp_path):
    """Exported, verified, described, compared, opened, and put into a repository."""
    result = export_model(model, tmp_path / "model.box", "toolbox", images=images)
    assert (result.format, result.device, result.verification.images) == ("toolbox", "cpu", len(images))
    torch.testing.assert_close(load_artifact(result.path).run(images)[0], eager[0], rtol=0, atol=1e-4)
    (row,) = compare_formats(model, tmp_path / "all", images=images, formats=["toolbox"]).rows
    assert (row.file, row.error) == ("toolbox.box", None)
    for source, options in ((Artifact(result.path), {}), (model, {"format": "toolbox"})):
        folder = write_triton_repository(source, tmp_path / "models", **options)
        assert check_model(folder)[0].name == "model.box"
    saved = str(save_model(model, tmp_path / "saved"))
    assert main(["export", saved, "--format", "toolbox", "--out", str(tmp_path / "again.box")]) == 0
    again, first = (Artifact(path).description for path in (tmp_path / "again.box", result.path))
    assert again["source"] == first["source"]


def test_the_check_of_an_entry_comes_before_the_work(toolbox, model, monkeypatch, tmp_path):
    monkeypatch.setitem(FORMATS, "toolbox", dataclasses.replace(toolbox, check="check"))
    with pytest.raises(BMRLError, match=r"^toolbox: expected a toolbox, got none$"):
        export_model(model, tmp_path / "model.box", "toolbox")
    assert not list(tmp_path.iterdir())


def test_the_result_is_what_artifact_json_says(model, images, tmp_path):
    result = export_model(model, tmp_path / "model.pt", images=images)
    entry = Artifact(result.path).description
    data = result.to_dict()
    assert data["path"] == str(tmp_path / "model.pt")
    for name in ("device", "sha256", "bytes", "verification"):
        assert data[name] == entry[name]
    assert result.verification.probe["embedding"] == entry["verification"]["probe"]["embedding"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.bytes = 0


@pytest.mark.parametrize(
    ("device", "format", "expected"), [("auto", "torchscript", "cpu"), (torch.device("cpu"), "pt2", "cpu")]
)
def test_devices_have_pytorchs_words(model, tmp_path, device, format, expected):
    result = export_model(model, tmp_path / f"model{FORMATS[format].suffix}", format, device=device)
    assert result.device == Artifact(result.path).description["device"] == expected


def test_an_artifact_is_loaded_when_it_is_run(model, images, eager, tmp_path, monkeypatch):
    path = export_model(model, tmp_path / "model.pt").path
    artifact = Artifact(path)
    assert repr(artifact) == f"Artifact({str(path)!r})"
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(BMRLError, match="expected the content with SHA-256"):
        artifact.run(images)
    path.write_bytes(content)
    torch.testing.assert_close(artifact.run(images)[0], eager[0], rtol=0, atol=1e-4)
    path.unlink()
    torch.testing.assert_close(artifact.run(images)[0], eager[0], rtol=0, atol=1e-4)
