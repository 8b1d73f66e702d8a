"""The folder of a running server: where it is, and what is left when everything was killed at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bmrl.errors import ServerError
from bmrl.export.triton.server import folder as _server_folder
from bmrl.export.triton.server.folder import Scratch, remove_abandoned
from bmrl.export.triton.server.wheel import link_models, server_environment


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Keep the tests to folders of their own."""
    for name in ("temporary", "shm", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(_server_folder, "PLACES", (str(tmp_path / "other"),))
    monkeypatch.setattr(_server_folder, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(_server_folder, "PYTHON_ENVIRONMENTS", tmp_path / "other")
    return tmp_path


def test_is_removed_with_all_that_belongs_to_it(places):
    (places / "other" / "python_env_before").mkdir()
    scratch = Scratch()
    assert scratch.path.parent == places / "temporary"
    assert scratch.path.stat().st_mode & 0o777 == 0o700
    (places / "other" / "python_env_mine").mkdir()
    (places / "other" / "python_env_used").mkdir()
    scratch.note_leftovers()
    (places / "other" / "python_env_later").mkdir()
    (places / "other" / "python_env_used" / "file").touch()
    (places / "shm" / f"{scratch.name}_1").touch()
    (places / "shm" / "bmrl-server-other").touch()
    (scratch.path / "deep" / "er").mkdir(parents=True)
    scratch.remove()
    assert not scratch.path.exists()
    assert {entry.name for entry in (places / "shm").iterdir()} == {"bmrl-server-other"}
    left = {entry.name for entry in (places / "other").iterdir()}
    assert left == {"python_env_before", "python_env_used", "python_env_later"}


PROGRAM = """
import os, signal, sys, tempfile
from bmrl.export.triton.server import folder as _server_folder
tempfile.tempdir, _server_folder.PYTHON_ENVIRONMENTS = sys.argv[1], _server_folder.Path(sys.argv[2])
scratch = _server_folder.Scratch()
(_server_folder.PYTHON_ENVIRONMENTS / "python_env_x").mkdir()
scratch.note_leftovers()
print(scratch.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_program_leaves_is_removed_by_the_next_one(places):
    command = [sys.executable, "-c", PROGRAM, str(places / "temporary"), str(places / "other")]
    name = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60).stdout.strip()
    (places / "shm" / f"{name}_region").touch()
    assert (places / "temporary" / name).is_dir()
    used = Scratch()
    (places / "temporary" / "bmrl-server-new").mkdir()  # one that is just being made
    (places / "temporary" / "bmrl-server-link").symlink_to(used.path)
    remove_abandoned()
    left = {entry.name for entry in (places / "temporary").iterdir()}
    assert left == {used.name, "bmrl-server-new", "bmrl-server-link"}
    assert not list((places / "shm").iterdir())
    assert not list((places / "other").iterdir())
    used.remove()


def test_is_in_use_as_long_as_a_process_that_inherited_it(places):
    scratch = Scratch()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[scratch.lock]) as child:
        os.close(scratch.lock)  # as if this program had been killed
        remove_abandoned()
        assert scratch.path.is_dir()
        child.stdin.close()
        child.wait()
    remove_abandoned()
    assert not scratch.path.exists()


def test_is_removed_where_it_lies_in_shared_memory(places, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(places / "shm"))
    scratch = Scratch()
    (scratch.path / "file").touch()
    scratch.remove()
    assert not list((places / "shm").iterdir())


def test_lies_where_the_server_can_read_its_name(places, monkeypatch):
    (places / "Umläute").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(places / "Umläute"))
    scratch = Scratch()
    assert scratch.path.parent == places / "other"
    scratch.remove()


def test_names_the_places_that_do_not_do(places, monkeypatch):
    (places / "Umläute").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(places / "Umläute"))
    monkeypatch.setattr(_server_folder, "PLACES", (str(places / "none"),))
    expected = (
        r"^TMPDIR: expected a folder for temporary files, got none "
        r"\(.*Umläute: letters beyond ASCII; .*none: no such file or directory\)$"
    )
    with pytest.raises(ServerError, match=expected):
        Scratch()


def test_a_model_is_a_folder_with_a_configuration(places):
    repository = places / "repository"
    for name in ("bmrl", "lost+found", ".snapshot", ".hidden"):
        (repository / name).mkdir(parents=True)
    for name in ("bmrl", ".hidden"):
        (repository / name / "config.pbtxt").touch()
    (repository / "file").touch()
    assert link_models(repository, places / "models") == ["bmrl"]
    assert [(entry.name, Path(os.readlink(entry))) for entry in (places / "models").iterdir()] == [
        ("bmrl", repository / "bmrl")
    ]


def test_programs_that_start_a_model_are_found_without_a_path(monkeypatch):
    """Without them the server waits for its models until the end of its time, and does not say why."""
    monkeypatch.setenv("PATH", "/nowhere")
    environment = server_environment()
    assert shutil.which("bash", path=environment["PATH"])
    assert environment["PATH"].split(os.pathsep)[:2] == [str(Path(sys.executable).parent), "/nowhere"]
    monkeypatch.setattr(os, "defpath", "/nowhere/else")
    with pytest.raises(ServerError, match=r"^PATH: expected a folder with bash, .*, got /nowhere:/nowhere/else$"):
        server_environment()
