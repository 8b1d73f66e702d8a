import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bmrl._files import claimed
from bmrl.data.manifest import Manifest
from bmrl.data.row import SPLITS
from bmrl.data.simulated import SIMULATORS, simulate
from bmrl.data.simulated import dataset as dataset_module
from bmrl.errors import DataError, DTypeError, FolderInUseError, MissingFileError, RangeError

SIZE = 64


def digests(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("made"), seed=3, images_per_generator=6, image_size=SIZE, workers=1)


@pytest.fixture(scope="module")
def made(report):
    return Manifest.read(report.manifest)


def test_reports_where_the_data_set_lies_and_what_is_in_it(report, made):
    assert report.manifest == report.folder / "manifest.csv"
    assert made.root == report.folder
    assert {generator.name for generator in made.generators()} == {simulator.name for simulator in SIMULATORS}
    assert report.num_images == len(made.rows)
    counts = {name: Counter(row.split for row in made.rows if row.generator == name) for name in report.images}
    assert report.images == {name: {split: count[split] for split in SPLITS} for name, count in counts.items()}
    assert json.loads(json.dumps(report.to_dict())) == {
        "folder": str(report.folder),
        "seed": 3,
        "image_size": SIZE,
        "images": report.images,
    }
    with pytest.raises(FrozenInstanceError):
        report.seed = 4


def test_counts_and_roles(made):
    for simulator in SIMULATORS:
        rows = [row for row in made.rows if row.generator == simulator.name]
        splits = [row.split for row in rows]
        assert splits == (["train"] * 4 + ["val", "test"] if simulator.role == "seen" else ["test"])
        assert {row.role for row in rows} == {simulator.role}


def test_default_counts():
    from bmrl.data.simulated.dataset import _plan

    rows = [picture.row for picture in _plan(200)]
    camera = [row.split for row in rows if row.generator == "sim_camera"]
    assert [camera.count(split) for split in ("train", "val", "test")] == [145, 15, 40]
    assert len(rows) == 2240


def test_a_person_never_crosses_splits_and_everybody_is_drawn_by_all(made):
    splits, drawn_by = {}, {}
    for row in made.rows:
        splits.setdefault(row.group, set()).add(row.split)
        drawn_by.setdefault(row.group, set()).add(row.generator)
    assert all(len(found) == 1 for found in splits.values())
    seen = {simulator.name for simulator in SIMULATORS if simulator.role == "seen"}
    assert all(found >= seen for found in drawn_by.values())


def test_images_and_maps(made):
    for row in made.rows:
        image, parsing = Image.open(made.image_path(row)), Image.open(made.parsing_path(row))
        assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", (SIZE, SIZE), {})
        assert (parsing.format, parsing.mode, parsing.size) == ("PNG", "L", (SIZE, SIZE))
        assert np.asarray(parsing).max() <= 18
        assert (np.asarray(parsing) == 1).any()


def test_contact_sheet_shows_every_generator(made):
    sheet = np.asarray(Image.open(made.root / "contact_sheet.png"))
    step = (sheet.shape[0] - 6) / len(SIMULATORS)
    shown = 2 * SIZE  # each pixel a square of four, for room for the label
    assert step == shown + 6
    row = next(row for row in made.select(split="test") if row.generator == SIMULATORS[2].name)
    top = int(6 + 2 * step)
    picture = np.asarray(Image.open(made.image_path(row))).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(sheet[top : top + shown, 250 : 250 + shown], picture)


def test_same_seed_same_bytes_with_other_workers_over_a_larger_earlier_output(made, tmp_path):
    simulate(tmp_path, seed=8, images_per_generator=8, image_size=SIZE)
    simulate(tmp_path, seed=np.int64(3), images_per_generator=6, image_size=SIZE, workers=3)
    assert digests(tmp_path) == digests(made.root)


def test_other_seed_other_pictures(made, tmp_path):
    other = digests(simulate(tmp_path / "new" / "folder", seed=4, images_per_generator=3, image_size=SIZE).folder)
    shared = {name for name in other if name.startswith("sim_")} & set(digests(made.root))
    assert shared
    assert all(other[name] != digests(made.root)[name] for name in shared)


def test_settings_are_recorded(made):
    settings = json.loads((made.root / "simulated.json").read_text())
    assert settings == {"seed": 3, "images_per_generator": 6, "image_size": SIZE}


@pytest.mark.parametrize(
    "name", ["thesis.txt", "sim_camera/me.png", "sim_camera/0001.jpg", "parsing/notes.txt", "a/b/c/1.png"]
)
def test_foreign_file_is_never_lost(made, tmp_path, name):
    simulate(tmp_path, images_per_generator=3, image_size=SIZE)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = digests(tmp_path)
    with pytest.raises(DataError, match=rf"folder: expected only files of a simulated data set, got .*{name}"):
        simulate(tmp_path, seed=1, images_per_generator=3, image_size=SIZE)
    assert digests(tmp_path) == before


def test_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "sim_camera").mkdir()
    (tmp_path / "sim_camera" / "0001.png").write_text("precious")
    with pytest.raises(
        DataError, match=r"folder: expected an empty folder or an earlier simulated data set, got .*0001\.png"
    ):
        simulate(tmp_path)
    assert digests(tmp_path).keys() == {"sim_camera/0001.png"}


def test_link_to_another_folder_is_refused(made, tmp_path):
    album, target = tmp_path / "album", tmp_path / "target"
    simulate(target, images_per_generator=3, image_size=SIZE)
    (target / "sim_camera").rename(album)
    (target / "sim_camera").symlink_to(album, target_is_directory=True)
    before = digests(album)
    with pytest.raises(DataError, match=r"folder: expected only files of a simulated data set, got .*sim_camera"):
        simulate(target, images_per_generator=3, image_size=SIZE)
    assert digests(album) == before


def test_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(DataError, match=r"folder: expected a folder, got the file .*file"):
        simulate(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        ({"seed": 1.5}, "seed: expected an integer >= 0, got 1.5"),
        ({"seed": True}, "seed: expected an integer >= 0, got True"),
        ({"images_per_generator": 0}, "images_per_generator: expected an integer >= 3 and <= 100000, got 0"),
        ({"images_per_generator": 2}, "images_per_generator: expected an integer >= 3 and <= 100000, got 2"),
        (
            {"images_per_generator": 10**6},
            "images_per_generator: expected an integer >= 3 and <= 100000, got 1000000",
        ),
        ({"image_size": 48}, "image_size: expected an integer >= 64 and <= 512, got 48"),
        ({"image_size": 1024}, "image_size: expected an integer >= 64 and <= 512, got 1024"),
        ({"image_size": 100}, "image_size: expected a multiple of 16, got 100"),
        ({"image_size": "128"}, "image_size: expected an integer >= 64 and <= 512, got '128'"),
        ({"workers": 0}, "workers: expected an integer >= 1 and <= 1024, got 0"),
        ({"workers": 10**9}, "workers: expected an integer >= 1 and <= 1024, got 1000000000"),
    ],
)
def test_bad_arguments_change_nothing(tmp_path, arguments, message):
    with pytest.raises((RangeError, DTypeError)) as caught:
        simulate(tmp_path / "new", **arguments)
    assert str(caught.value) == message
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new").exists()


def test_what_a_kill_left_is_no_data_set_and_is_replaced(tmp_path):
    simulate(tmp_path / "data", images_per_generator=3, image_size=SIZE)
    whole = digests(tmp_path / "data")
    script = """
import os, sys
from bmrl.data import simulate
from bmrl.data.manifest import Manifest
Manifest.write = lambda self: os.kill(os.getpid(), 9)
simulate(sys.argv[1], seed=1, images_per_generator=3, image_size=64)
"""
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path / "data")], check=False)
    assert result.returncode == -9
    with pytest.raises(MissingFileError):
        Manifest.read(tmp_path / "data")
    simulate(tmp_path / "data", images_per_generator=3, image_size=SIZE)
    assert digests(tmp_path / "data") == whole


def test_two_at_once_are_refused(tmp_path):
    with claimed(tmp_path), pytest.raises(FolderInUseError, match="folder that no other process writes into"):
        simulate(tmp_path, images_per_generator=3, image_size=SIZE)


def test_a_full_disk_names_the_file(tmp_path):
    script = """
import resource, signal, sys
from bmrl.data import simulate
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    simulate(sys.argv[1], images_per_generator=3, image_size=64)
except ValueError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    message = r"/.*sim_\w+/\d+\.png: expected a file that can be written, got: File too large\n"
    assert re.fullmatch(message, result.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existed", [True, False])
def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch, existed):
    folder = tmp_path / "faces"
    if existed:
        folder.mkdir()

    def interrupted(*arguments):
        assert (folder / "parsing").is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_module, "write_contact_sheet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, images_per_generator=3, image_size=64)
    assert [*tmp_path.rglob("*")] == ([folder] if existed else [])


def test_rejects_what_is_no_path():
    with pytest.raises(DTypeError, match="folder: expected a path, got 3"):
        simulate(3)
