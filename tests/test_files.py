from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bmrl._files import claimed, new_file, new_folder, scratch, write_text
from bmrl.errors import FolderInUseError, MissingFileError


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


def test_text_is_written_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_renamed_into_place_was_flushed_before(tmp_path, monkeypatch):
    calls = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    write_text(tmp_path / "file", "text")
    assert [entry.rpartition("/")[2] for entry in calls] == ["file", "replace", tmp_path.name]


def test_a_folder_is_claimed_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "run"
    code = "import sys, pathlib; from bmrl._files import claimed; claimed(pathlib.Path(sys.argv[1])).__enter__()"
    with claimed(folder):
        other = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
        assert other.returncode
        assert f"FolderInUseError: {folder}: expected a folder that no other process writes into" in other.stderr
        with pytest.raises(FolderInUseError), claimed(folder):
            pass
    assert not any(folder.iterdir())
    with claimed(folder):
        pass


def test_a_claim_ends_with_a_killed_holder(tmp_path):
    code = (
        "import sys, os, signal, pathlib; from bmrl._files import claimed;"
        "claimed(pathlib.Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
    with claimed(tmp_path):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from bmrl._files import new_folder

replace, left = os.replace, [int(sys.argv[2])]

def replace_or_die(source, target):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    replace(source, target)

os.replace = replace_or_die
with new_folder(Path(sys.argv[1])) as temporary:
    (temporary / "second").touch()
"""


@pytest.mark.parametrize("moves", [0, 1])
def test_a_kill_at_a_move_loses_nothing(tmp_path, moves):
    folder = tmp_path / "[a]"
    folder.mkdir()
    (folder / "first").touch()
    other = tmp_path / ".[a].abcdefgh"
    other.mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(moves)], timeout=60, check=False)
    assert ended.returncode == -9
    assert len(list(tmp_path.iterdir())) == 3 - moves
    with new_folder(folder) as temporary:
        (temporary / "third").touch()
        with new_folder(folder) as second:  # whose holder is alive stays
            (second / "fourth").touch()
        assert (temporary / "third").exists()
        assert [entry.name for entry in folder.iterdir()] == ["fourth"]
    assert [entry.name for entry in folder.iterdir()] == ["third"]
    assert sorted(tmp_path.iterdir()) == [other, folder]


def test_what_was_moved_aside_before_a_kill_is_there_when_the_new_folder_is_finished(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "first").touch()
    subprocess.run([sys.executable, "-c", KILLED, str(folder), "1"], timeout=60, check=False)
    assert not folder.exists()
    found = []
    with new_folder(folder, lambda temporary: found.extend(entry.name for entry in folder.iterdir())):
        pass
    assert found == ["first"]
    assert list(tmp_path.iterdir()) == [folder]


def test_scratch_is_beside_the_path_and_goes_with_the_block(tmp_path):
    with scratch(tmp_path / "a.pt") as folder:
        assert folder.parent == tmp_path
        (folder / "deep").mkdir()
    assert not [*tmp_path.iterdir()]


KILLED_IN_SCRATCH = """
import os, signal, sys
from pathlib import Path
from bmrl._files import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scratch_of_a_killed_process_goes_with_the_next_one_of_its_path(tmp_path):
    for name in ("a.pt", "a.ptx"):
        subprocess.run([sys.executable, "-c", KILLED_IN_SCRATCH, str(tmp_path / name)], check=False)
    foreign = tmp_path / ".a.pt.abcdefgh"  # it holds no lock
    foreign.mkdir()
    with scratch(tmp_path / "a.pt") as first, scratch(tmp_path / "a.pt") as second:
        assert first != second
        assert first.is_dir()  # its holder is alive
        kept = {entry.name.rpartition(".")[0] for entry in tmp_path.iterdir() if entry not in (first, second, foreign)}
    assert kept == {".a.ptx"}
    assert foreign.is_dir()


def test_scratch_wants_an_existing_parent(tmp_path):
    with pytest.raises(MissingFileError, match="expected an existing parent folder"), scratch(tmp_path / "no" / "a"):
        pass
