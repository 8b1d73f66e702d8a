"""Several folders that are one class: names, families, roles, and separate groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bmrl.data import Manifest, import_faces
from bmrl.errors import DataError
from bmrl.generators import Generator


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def source(tmp_path):
    """Photographs in two folders, with the same file names, and swaps that are named after them."""
    for index in range(12):
        save(tmp_path / "source" / "0_Real_CelebDF" / f"{index:02}.png", index)
        save(tmp_path / "source" / "0_Real_FF++" / f"{index:02}.png", 100 + index)
        save(tmp_path / "source" / "simswap" / f"{index:02}.png", 200 + index)
    return tmp_path / "source"


@pytest.fixture
def families(tmp_path):
    """Return a function that writes a families file."""

    def write(text: str) -> Path:
        path = tmp_path / "families.yaml"
        path.write_text(text)
        return path

    return write


ONE = "0_Real_CelebDF: {generator: photographs, manipulation: none}\n0_Real_FF++: {generator: photographs}\n"


def test_folders_become_one_class_with_groups_of_their_own(source, families, tmp_path):
    report = import_faces(source, tmp_path / "out", families=families(ONE), val=0.1, test=0.3)
    manifest = Manifest.read(report.folder)
    assert manifest.generators() == [
        Generator(name="photographs", manipulation="none", architecture="none"),
        Generator(name="simswap", manipulation="FS", architecture="GAN"),
    ]
    assert sum(report.images["photographs"].values()) == 24
    assert {row.path for row in manifest.rows} == {str(path.relative_to(source)) for path in source.rglob("*.png")}
    for row in manifest.rows:
        folder, stem = Path(row.path).parent.name, Path(row.path).stem
        assert row.generator == ("simswap" if folder == "simswap" else "photographs")
        assert row.group == (stem if folder == "simswap" else f"{folder}/{stem}")
    # A swap may be made of either photograph of its name.
    splits = {stem: {row.split for row in manifest.rows if Path(row.path).stem == stem} for stem in ("00", "07", "11")}
    assert all(len(found) == 1 for found in splits.values())


def test_a_name_in_one_of_the_folders_alone_is_one_group_with_what_was_made_of_it(source, families, tmp_path):
    for index in range(6):
        (source / "0_Real_FF++" / f"{index:02}.png").unlink()
    manifest = Manifest.read(import_faces(source, tmp_path / "out", families=families(ONE)).folder)
    groups = {row.path: row.group for row in manifest.rows}
    assert groups["0_Real_CelebDF/03.png"] == groups["simswap/03.png"] == "03"
    assert groups["0_Real_CelebDF/08.png"] == "0_Real_CelebDF/08"


def test_a_pattern_makes_one_group_of_both_folders(source, families, tmp_path):
    text = ONE.replace("}", ", group: '^(..)'}")
    manifest = Manifest.read(import_faces(source, tmp_path / "out", families=families(text)).folder)
    assert all(row.group == Path(row.path).stem for row in manifest.rows)
    text = ONE.replace("none}", "none, group: '^(..)'}")  # of one folder alone
    manifest = Manifest.read(import_faces(source, tmp_path / "other", families=families(text)).folder)
    for row in manifest.rows:
        folder, stem = Path(row.path).parent.name, Path(row.path).stem
        assert row.group == (f"{folder}/{stem}" if folder == "0_Real_FF++" else stem)


def test_a_folder_may_name_another_that_is_known_or_described(source, families, tmp_path):
    save(source / "ddpm" / "a.png", 500)
    save(source / "DDPM_more" / "b.png", 501)
    report = import_faces(source, tmp_path / "out", families=families("DDPM_more: {generator: ddpm}"))
    assert sum(report.images["ddpm"].values()) == 2
    text = "DDPM_more: {generator: ddpm, manipulation: AM, architecture: flow, role: unseen}"
    manifest = Manifest.read(import_faces(source, tmp_path / "other", families=families(text)).folder)
    rows = [row for row in manifest.rows if row.generator == "ddpm"]
    assert {(row.manipulation, row.architecture, row.role) for row in rows} == {("AM", "flow", "unseen")}
    assert len(rows) == 2


def test_unseen_names_the_class(source, families, tmp_path):
    report = import_faces(source, tmp_path / "out", families=families(ONE), unseen=["photographs"])
    assert report.images["photographs"] == {"train": 0, "val": 0, "test": 24}
    with pytest.raises(
        DataError, match=r"^unseen: expected generators among photographs, simswap, got '0_Real_FF\+\+'$"
    ):
        import_faces(source, tmp_path / "other", families=families(ONE), unseen=["0_Real_FF++"])


def test_contradictions_are_refused(source, families, tmp_path):
    text = ONE.replace("photographs}", "photographs, manipulation: FR, architecture: GAN}")
    with pytest.raises(DataError, match=r"FF\+\+, manipulation: expected 'none' .* 0_Real_CelebDF says, got 'FR'$"):
        import_faces(source, tmp_path / "out", families=families(text))
    assert not (tmp_path / "out").exists()


def test_the_same_picture_in_both_folders_is_one_group_and_no_wrong_label(source, families, tmp_path):
    save(source / "0_Real_FF++" / "copy.png", 3)  # as 0_Real_CelebDF/03.png
    report = import_faces(source, tmp_path / "out", families=families(ONE))
    assert report.duplicates == [["0_Real_CelebDF/03.png", "0_Real_FF++/copy.png"]]
    assert report.mislabeled == []
    groups = {row.path: row.group for row in Manifest.read(report.folder).rows}
    assert groups["0_Real_CelebDF/03.png"] == groups["0_Real_FF++/copy.png"]


@settings(max_examples=15)
@given(
    files=st.sets(st.tuples(st.sampled_from(["a", "b", "c", "swaps"]), st.integers(0, 5)), min_size=1),
    seed=st.integers(0, 3),
)
def test_groups_are_apart_and_names_in_one_split(tmp_path_factory, files, seed):
    """Of the folders a, b and c of one class, and swaps: one group per picture, one split per name."""
    root = tmp_path_factory.mktemp("import")
    for place, (folder, number) in enumerate(sorted(files)):
        save(root / "source" / folder / f"{number}.png", place)
    used = {folder for folder, _ in files}
    families = root / "families.yaml"
    lines = {name: f"{name}: {{generator: photographs, manipulation: none}}\n" for name in "abc"}
    lines["swaps"] = "swaps: {manipulation: FS, architecture: autoencoder}\n"
    families.write_text("".join(lines[folder] for folder in sorted(used)))
    report = import_faces(root / "source", root / "out", families=families, seed=seed, val=0.2, test=0.3)
    rows = Manifest.read(report.folder).rows
    assert len(rows) == len(files)
    for number in range(6):
        same = [row for row in rows if Path(row.path).stem == str(number)]
        photographs = [row for row in same if row.generator == "photographs"]
        assert len({row.group for row in photographs}) == len(photographs)
        assert len({row.split for row in same}) <= 1


def test_what_the_file_says_of_a_folder_holds_for_its_sub_folders(source, families, tmp_path):
    """A folder that the file calls photographs keeps those in its sub-folder "real"; its own name says nothing."""
    for index in range(8):
        save(source / "portraits" / "real" / f"p{index}.png", 300 + index)
        save(source / "photographs" / "real_2" / f"q{index}.png", 400 + index)
    said = ONE + "portraits: {generator: photographs}\n"
    report = import_faces(source, tmp_path / "out", families=families(said))
    assert {name: sum(splits.values()) for name, splits in report.images.items()} == {"photographs": 40, "simswap": 12}
    assert report.warnings == []
    save(source / "portraits" / "fake" / "a.png", 500)
    with pytest.raises(DataError, match=r"portraits/fake: expected photographs, as portraits says, got a folder of f"):
        import_faces(source, tmp_path / "other", families=families(said))
