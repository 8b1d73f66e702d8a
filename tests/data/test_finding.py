from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmrl.data import find_images, simulate
from bmrl.data.finding import find_files, natural_order
from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError, MissingFileError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder).images]


def test_a_data_folder_means_the_images_of_its_manifest(tmp_path):
    """Neither its parsing maps nor its contact sheet, nor what else lies there."""
    manifest = Manifest.read(simulate(tmp_path / "data", images_per_generator=3, image_size=64).folder)
    touch(tmp_path / "data", "sim_camera/.hidden.png", "notes.png")
    images, unsupported, skipped = find_images(tmp_path / "data")
    assert sorted(images) == sorted(manifest.image_path(row) for row in manifest.rows)
    assert (unsupported, skipped) == ({}, [])
    touch(tmp_path, "a.png")
    assert len(find_images(tmp_path).images) == len(manifest.rows) + 1  # and so does one below the folder


def test_a_manifest_is_believed_or_refused(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "manifest.csv").write_text("file,label\na.png,1\n")
    with pytest.raises(DataError, match=r"manifest\.csv, line 1: expected one column path"):
        find_images(tmp_path)


def test_a_manifest_names_images_that_are_not_there(tmp_path):
    Manifest(tmp_path, (Row("b.png", "ddpm", "EFS", "diffusion", "seen", "train", "1"),)).write()
    touch(tmp_path, "a.png")
    assert found(tmp_path) == ["b.png"]


def test_what_is_no_face_is_passed_over(tmp_path):
    touch(tmp_path, "a.png", "b/c.JPG", "b/parsing/d.png")
    touch(tmp_path, ".a.png", "._a.png", ".git/a.png", "__MACOSX/a.png", "b/@eaDir/a.jpg/thumb.jpg", "Thumbs.db")
    touch(tmp_path, "notes.txt", "png", "parsing/a.png")
    assert found(tmp_path) == ["a.png", "b/c.JPG", "b/parsing/d.png"]
    skipped = find_images(tmp_path).skipped
    assert skipped == [(tmp_path / "parsing", "expected faces, got the folder of parsing maps")]


def test_pictures_that_can_not_be_read_are_counted(tmp_path):
    touch(tmp_path, "a.heic", "b/c.HEIC", "d.avif", "e.jxl", "f.mp4", "g.nef", "h.png", ".i.heic", "j.txt")
    images, unsupported, skipped = find_images(tmp_path)
    assert images == [tmp_path / "h.png"]
    assert list(unsupported.items()) == [(".avif", 1), (".heic", 2), (".jxl", 1), (".mp4", 1), (".nef", 1)]
    assert skipped == []


def test_special_files_are_named_and_never_opened(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "folder.png/b.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        images, _, skipped = find_images(tmp_path)
    assert images == [tmp_path / "a.png", tmp_path / "folder.png" / "b.png"]
    assert skipped == [
        (tmp_path / "device.png", "expected a file, got a device"),
        (tmp_path / "pipe.png", "expected a file, got a named pipe"),
        (tmp_path / "socket.png", "expected a file, got a socket"),
    ]


def test_links_are_followed_once(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    touch(folder, "z/1.png")
    touch(elsewhere, "2.png")
    (folder / "a").symlink_to(folder / "z")  # known by its own name, although the link sorts first
    (folder / "b").symlink_to(elsewhere)
    (folder / "z" / "loop").symlink_to(folder)
    (folder / "z" / "above").symlink_to(tmp_path)
    (folder / "self").symlink_to("self")
    (folder / "3.png").symlink_to(elsewhere / "2.png")
    (folder / "4.png").symlink_to(elsewhere / "nowhere")
    images, _, skipped = find_images(folder)
    assert images == [folder / name for name in ("3.png", "4.png", "b/2.png", "z/1.png")]
    assert dict(skipped) == {
        folder / "a": f"expected each folder once, got a link to {folder / 'z'}",
        folder / "z" / "loop": f"expected each folder once, got a link to {folder}",
        folder / "z" / "above": f"expected each folder once, got a link to {tmp_path}",
    }


def test_a_folder_that_can_not_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images, _, skipped = find_images(tmp_path)
    assert images == [tmp_path / "b" / "2.png"]
    assert skipped == [(tmp_path / "a", "expected a readable folder, got: Permission denied")]


def test_rejects_what_is_no_folder(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere: expected a folder, got nothing at this path$"):
        find_images(tmp_path / "nowhere")
    touch(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png: expected a folder, got something else$"):
        find_images(tmp_path / "a.png")
    for name in ("a" * 300, "a\0b", "a\x1b[31m"):
        with pytest.raises(MissingFileError, match=r": expected a folder, got nothing at this path$") as caught:
            find_images(tmp_path / name)
        assert str(caught.value).isprintable()


def test_numbers_are_sorted_by_value(tmp_path):
    touch(tmp_path, "10.png", "9.png", "a10/1.png", "a9/1.png", "a/2.png", "b.png", "09.png", "²x.png")
    assert found(tmp_path) == ["09.png", "9.png", "10.png", "a/2.png", "a9/1.png", "a10/1.png", "b.png", "²x.png"]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="a/0123456789.²", min_size=1, max_size=8), max_size=6))
def test_the_order_is_total(names):
    paths = {Path(name) for name in names}
    keys = {natural_order(path) for path in paths}
    assert len(keys) == len(paths)
    assert sorted(keys) == sorted(sorted(keys), reverse=True)[::-1]  # and any two can be compared


def test_finds_every_file_regardless_of_manifests(tmp_path):
    touch(tmp_path, "manifest.csv", "a/manifest.csv", "a/1.png", "a/.2.png", "b.txt")
    files, skipped = find_files(tmp_path)
    assert files == [tmp_path / name for name in ("a/1.png", "a/manifest.csv", "b.txt", "manifest.csv")]
    assert skipped == []
