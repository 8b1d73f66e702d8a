from __future__ import annotations

import os

import pytest

from bmrl.errors import MissingFileError
from bmrl._files import new_file, new_folder


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "file"
    with new_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_stays_as_it_was_when_the_block_fails(tmp_path, before):
    path = tmp_path / "file"
    if before:
        path.write_text(before)

    def write():
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([before] if before else [])


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "folder"
    for content in ("first", "second"):
        with new_folder(folder) as temporary:
            (temporary / content).touch()
        assert [entry.name for entry in folder.iterdir()] == [content]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_stays_as_it_was_when_the_block_fails(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()

    def write():
        with new_folder(folder) as temporary:
            (temporary / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [entry.name for entry in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_the_parent_must_exist(tmp_path, new):
    with pytest.raises(MissingFileError, match=r"a/b: expected an existing parent folder, got none at .*a$"):
        new(tmp_path / "a" / "b").__enter__()


def test_an_interrupt_between_the_two_moves_brings_the_old_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    replace = os.replace

    def replace_once(source, target):
        if source != folder and target == folder and not os.path.exists(folder / "old"):
            monkeypatch.setattr(os, "replace", replace)
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(KeyboardInterrupt), new_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [entry.name for entry in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]
