from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bmrl._files import claimed
from bmrl.data.importers.folder import import_faces
from bmrl.data.manifest import Manifest
from bmrl.data.row import SPLITS
from bmrl.errors import DataError, DTypeError, FolderInUseError, MissingFileError, RangeError


def save(path: Path, seed: int, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(array).save(path)


def save_map(path: Path, size: tuple[int, int] = (8, 6), level: int = 18) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_warnings(report, *facts):
    """Check that there are as many warnings as patterns, and that each says what its pattern asks for."""
    assert len(report.warnings) == len(facts), report.warnings
    for warning, fact in zip(report.warnings, facts, strict=True):
        assert re.search(fact, warning), warning


@pytest.fixture
def source(tmp_path):
    """Photographs, a generator whose images are named after them, and one to be held out; 20 images each."""
    folder = tmp_path / "source"
    for index in range(20):
        save(folder / "real_faces" / f"{index:02}.png", index)
        save(folder / "StyleGAN2" / "a" / f"{index:02}.jpg", 100 + index)
        save(folder / "SD-2.1" / f"{index:02}.webp", 200 + index)
    return folder


def test_imports_a_folder_per_generator(source, tmp_path):
    (source / "README.txt").write_text("hello")
    (source / "StyleGAN2" / "notes.md").write_text("hello")
    (source / "StyleGAN2" / ".hidden.png").write_text("hello")
    (source / ".cache").mkdir()
    save_map(source / "parsing" / "StyleGAN2" / "a" / "03.png")
    before = snapshot(source)
    out = tmp_path / "out"
    report = import_faces(source, out, unseen=["SD-2.1"])
    manifest = Manifest.read(report.manifest)

    assert snapshot(source) == before
    assert manifest.root == report.folder == out
    assert [(g.name, g.manipulation, g.architecture) for g in manifest.generators()] == [
        ("SD-2.1", "EFS", "diffusion"),
        ("StyleGAN2", "EFS", "GAN"),
        ("real_faces", "none", "none"),
    ]
    images = {path: data for path, data in before.items() if Path(path).suffix in (".jpg", ".webp", ".png")}
    del images["StyleGAN2/.hidden.png"]
    written = {path: data for path, data in snapshot(out).items() if not path.endswith((".csv", ".json"))}
    assert written == images
    assert {row.path for row in manifest.rows} == {path for path in images if not path.startswith("parsing")}
    assert manifest.parsing_path(next(r for r in manifest.rows if r.path == "StyleGAN2/a/03.jpg")).exists()
    expected = {"train": 14, "val": 2, "test": 4}
    held_out = {"train": 0, "val": 0, "test": 20}
    assert report.images == {"SD-2.1": held_out, "StyleGAN2": expected, "real_faces": expected}
    assert report.num_parsing == 1
    assert report.ignored == {".md": 1, ".txt": 1}
    assert report.skipped == report.parsing_skipped == report.duplicates == report.mislabeled == report.warnings == []
    assert report.manifest == out / "manifest.csv"
    assert report.num_images == 60
    stored = json.loads((out / "import_report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report.to_dict()))
    assert stored["images"] == report.images
    assert (stored["source"], stored["folder"]) == (str(source), str(out))
    with pytest.raises(FrozenInstanceError):
        report.num_parsing = 2
    assert report.summary() == (
        "60 images of 3 generators, 1 parsing maps; skipped 0 images and 0 maps, ignored 2 other files, "
        "0 sets of duplicates (0 across generators)"
    )


def test_the_same_picture_is_in_one_split_for_every_generator(source, tmp_path):
    manifest = Manifest.read(import_faces(source, tmp_path / "out").manifest)
    splits: dict[str, set[str]] = {}
    for row in manifest.rows:
        splits.setdefault(Path(row.path).stem, set()).add(row.split)
        assert row.group == Path(row.path).stem
    assert all(len(found) == 1 for found in splits.values())


def test_is_reproducible(source, tmp_path):
    first, second, other = (
        Manifest.read(import_faces(source, tmp_path / f"out{i}", seed=i // 2).manifest) for i in range(3)
    )
    assert first.rows == second.rows
    assert first.rows != other.rows


@settings(max_examples=15, deadline=None)
@given(
    files=st.lists(
        st.tuples(st.sampled_from(["real", "DDPM", "e4s"]), st.integers(0, 5), st.integers(0, 9), st.integers(0, 12)),
        min_size=1,
        max_size=25,
        unique_by=lambda file: file[:3],
    ),
    seed=st.integers(0, 5),
)
def test_no_group_and_no_duplicate_crosses_splits(tmp_path_factory, files, seed):
    """Groups by a pattern, and images of the same bytes under several names, in one or several generators."""
    root = tmp_path_factory.mktemp("import")
    for generator, person, shot, content in files:
        save(root / "source" / generator / f"{person}_{shot}.png", content)
    families = root / "families.yaml"
    rules = {"real": "manipulation: none", "DDPM": "manipulation: EFS, architecture: diffusion"}
    rules["e4s"] = "manipulation: FS, architecture: GAN, role: unseen"
    used = {generator for generator, *_ in files}
    families.write_text(
        "".join(f"{name}: {{{rule}, group: '^(\\d+)_'}}\n" for name, rule in rules.items() if name in used)
    )
    report = import_faces(root / "source", root / "out", families=families, seed=seed, val=0.2, test=0.3)
    manifest = Manifest.read(report.manifest)

    assert len(manifest.rows) == len(files)
    by_person: dict[str, set[str]] = {}
    by_content: dict[bytes, set[tuple[str, str]]] = {}
    for row in manifest.rows:
        by_content.setdefault(manifest.image_path(row).read_bytes(), set()).add((row.path, row.group))
        if row.role == "seen":
            by_person.setdefault(Path(row.path).stem.split("_")[0], set()).add(row.split)
        else:
            assert row.split == "test"
    assert all(len(splits) == 1 for splits in by_person.values())
    assert all(len({group for _, group in found}) == 1 for found in by_content.values())
    same = sorted(sorted(path for path, _ in found) for found in by_content.values() if len(found) > 1)
    assert sorted(map(sorted, report.duplicates)) == same
    assert sorted(map(sorted, report.mislabeled)) == [s for s in same if len({path.split("/")[0] for path in s}) > 1]


def test_unreadable_images_and_maps_are_listed(source, tmp_path, caplog):
    (source / "StyleGAN2" / "a" / "00.jpg").write_bytes(b"")
    (source / "StyleGAN2" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    save_map(source / "parsing" / "real_faces" / "00.png", level=19)
    save_map(source / "parsing" / "real_faces" / "01.png", size=(6, 8))
    save(source / "real_faces" / "02.jpg", 77)  # next to 02.png
    save_map(source / "parsing" / "real_faces" / "02.png")
    report = import_faces(source, tmp_path / "out")
    assert report.skipped == [
        ("StyleGAN2/a/00.jpg", "expected an image, got no bytes"),
        ("StyleGAN2/broken.png", "expected an image file, got nothing at this path"),
    ]
    assert report.parsing_skipped == [
        ("real_faces/00.png", "expected class indices 0 to 18, got 19"),
        ("real_faces/01.png", "expected the image's 8 x 6 pixels, got 6 x 8"),
        ("real_faces/02.jpg", "expected one image of this name, got several with different suffixes"),
        ("real_faces/02.png", "expected one image of this name, got several with different suffixes"),
    ]
    assert not (tmp_path / "out" / "parsing").exists()
    assert caplog.messages == []  # who imports is given the report
    assert "skipped 2 images and 4 maps" in report.summary()


def test_names_that_a_manifest_can_not_hold_are_listed(source, tmp_path):
    save(source / "StyleGAN2" / "a\\b.png", 1)
    os.rename(source / "StyleGAN2" / "a" / "00.jpg", os.fsencode(source / "StyleGAN2") + b"/\xff.jpg")
    report = import_faces(source, tmp_path / "out")
    reason = "expected a name in UTF-8, without backslashes and drives, got another"
    assert report.skipped == [("StyleGAN2/a\\b.png", reason), ("StyleGAN2/\udcff.jpg", reason)]
    stored = json.loads((tmp_path / "out" / "import_report.json").read_text(encoding="utf-8"))
    assert stored["skipped"] == [["StyleGAN2/a\\b.png", reason], ["StyleGAN2/\udcff.jpg", reason]]


def test_warns_of_empty_splits(tmp_path, caplog):
    save(tmp_path / "source" / "DDPM" / "a.png", 0)
    report = import_faces(tmp_path / "source", tmp_path / "out")
    check_warnings(report, "^DDPM: no images in test")
    assert caplog.messages == [f"{tmp_path / 'out'}: {report.warnings[0]}"]
    report = import_faces(tmp_path / "source", tmp_path / "other", unseen=["DDPM"])
    check_warnings(report, "no generator is seen")


def test_links_instead_of_copies(source, tmp_path):
    save_map(source / "parsing" / "real_faces" / "00.png")
    manifest = Manifest.read(import_faces(source, tmp_path / "out", symlink=True).manifest)
    for row in manifest.rows:
        assert manifest.image_path(row).is_symlink()
        assert manifest.image_path(row).samefile(source / row.path)
    assert (tmp_path / "out" / "parsing" / "real_faces" / "00.png").is_symlink()


ASK = "correct this and pass it as a YAML file"


def test_asks_for_unknown_families(source, tmp_path):
    save(source / "mygan" / "a.png", 1)
    save(source / "other" / "a.png", 2)
    with pytest.raises(DataError) as caught:
        import_faces(source, tmp_path / "out")
    entry = "{manipulation: EFS, architecture: GAN}"
    message = str(caught.value)
    assert message.startswith("families: expected the manipulation (none, EFS, FS, AM, FR) and architecture (none, ")
    assert message.endswith(f"of mygan, other, got none; {ASK}: {{mygan: {entry}, other: {entry}}}")
    families = tmp_path / "families.yaml"
    families.write_text(str(caught.value).split("YAML file: ")[1])  # what the error says is a valid file
    manifest = Manifest.read(import_faces(source, tmp_path / "out", families=families).manifest)
    assert {row.generator for row in manifest.rows} == {"mygan", "other", "real_faces", "StyleGAN2", "SD-2.1"}


def test_rejects_names_and_patterns_that_do_not_fit(source, tmp_path):
    names = "SD-2.1, StyleGAN2, real_faces"
    with pytest.raises(DataError, match=f"^unseen: expected generators among {names}, got 'sd21'$"):
        import_faces(source, tmp_path / "out", unseen=["sd21"])
    families = tmp_path / "families.yaml"
    families.write_text("real: {manipulation: none}")
    with pytest.raises(DataError) as caught:
        import_faces(source, tmp_path / "out", families=families)
    assert str(caught.value) == f"{families}: expected folders among {names}, got 'real'"
    families.write_text(r"real_faces: {manipulation: none, group: '^(\d+)_'}")
    with pytest.raises(DataError) as caught:
        import_faces(source, tmp_path / "out", families=families)
    assert str(caught.value) == r"real_faces/00.png: expected the group pattern '^(\\d+)_' to find a name, got nothing"
    assert not (tmp_path / "out").exists()


def test_rejects_folders_without_images(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    with pytest.raises(
        MissingFileError, match=r"source: expected a folder with a folder per generator, got none at this"
    ):
        import_faces(source, out)
    (source / "parsing").mkdir(parents=True)
    save(source / "a.png", 1)
    with pytest.raises(DataError, match=r"source: expected a folder per generator, got no folders$"):
        import_faces(source, out)
    (source / "DDPM").mkdir()
    with pytest.raises(DataError, match=r"source: expected images \(\.apng .*\) in the generators' folders, got none$"):
        import_faces(source, out)
    (source / "DDPM" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"source: expected at least one readable image, got none of 1$"):
        import_faces(source, out)
    assert not out.exists()


def test_rejects_destinations(source, tmp_path):
    out = tmp_path / "out"
    for inside in (source, source / "new"):
        with pytest.raises(
            DataError, match=r"expected a folder outside .*source, which an import leaves as it is, got one"
        ):
            import_faces(source, inside)
    out.write_text("a file")
    with pytest.raises(DataError, match=r"out: expected a new or empty folder, got a file$"):
        import_faces(source, out)
    with pytest.raises(DataError, match=r"expected a new or empty folder, got one that holds .*source$"):
        import_faces(source, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".notes").write_text("mine")
    with pytest.raises(DataError, match=r"expected a new or empty folder, got one that holds files$"):
        import_faces(source, tmp_path / "full")
    assert (tmp_path / "full" / ".notes").read_text() == "mine"
    assert out.read_text() == "a file"
    out.unlink()
    out.mkdir()
    import_faces(source, out)  # an empty one is fine


def test_rejects_shares(source, tmp_path):
    with pytest.raises(RangeError, match=r"val, test: expected a sum below 1, got 0\.6 \+ 0\.4"):
        import_faces(source, tmp_path / "out", val=0.6, test=0.4)


def test_a_failure_on_the_way_leaves_nothing(source, tmp_path):
    save(source / "StyleGAN2" / "import_report.json" / "a.png", 1)  # fine below a generator
    import_faces(source, tmp_path / "fine")
    (source / "import_report.json").mkdir()
    save(source / "import_report.json" / "a.png", 1)  # takes the place of the report
    families = tmp_path / "families.yaml"
    families.write_text("import_report.json: {manipulation: none}")
    with pytest.raises(DataError, match=r"out: expected a folder that can be written into, got: Is a directory$"):
        import_faces(source, tmp_path / "out", families=families)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        import_faces(source, tmp_path / "out", families=families)
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_of_a_video_are_one_group(tmp_path):
    source = tmp_path / "source"
    for video in range(10):
        for frame in range(3):
            save(source / "simswap" / f"vid{video}" / f"{frame:04}.png", 10 * video + frame)
            save(source / "real" / "frames" / f"person {video}" / f"frame_{frame}.png", 200 + 10 * video + frame)
    report = import_faces(source, tmp_path / "out")
    manifest = Manifest.read(report.manifest)
    assert {row.group for row in manifest.rows} == {f"{what}{i}" for what in ("vid", "person ") for i in range(10)}
    for row in manifest.rows:
        assert row.group == row.path.split("/")[-2]
    check_warnings(report, "^real: .* 10 .*frames/person 0 .*group pattern", "^simswap: .* 10 .*vid0 .*group pattern")
    families = tmp_path / "families.yaml"
    families.write_text("simswap: {manipulation: FS, architecture: GAN, group: '[0-9]+$'}")
    report = import_faces(source, tmp_path / "other", families=families)
    manifest = Manifest.read(report.manifest)
    assert {row.group for row in manifest.rows if row.generator == "simswap"} == {"0000", "0001", "0002"}
    assert [warning.split(":")[0] for warning in report.warnings] == ["real"]


def test_a_swap_stays_with_the_videos_it_was_made_of(tmp_path):
    source = tmp_path / "source"
    for video in range(8):
        for frame in range(2):
            save(source / "real" / f"frames/{video:03}" / f"{frame}.png", 10 * video + frame)
            swap = f"{video:03}_{video ^ 1:03}"
            save(source / "simswap" / f"frames/{swap}" / f"{frame}.png", 100 + 10 * video + frame)
    manifest = Manifest.read(import_faces(source, tmp_path / "out", val=0, test=0.5).manifest)
    split_of: dict[str, set[str]] = {}
    for row in manifest.rows:
        for person in row.path.split("/")[-2].split("_"):
            split_of.setdefault(person, set()).add(row.split)
    assert len(split_of) == 8
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {row.split for row in manifest.rows} == {"train", "test"}


def test_numbers_in_few_large_folders_are_asked_about(tmp_path):
    """They may be settings of one generator, with pictures of one source, or videos."""
    for folder in ("first", "second"):
        for frame in range(4):
            save(tmp_path / "source" / "DDPM" / folder / f"{frame}.png", frame + 10 * len(folder))
    report = import_faces(tmp_path / "source", tmp_path / "out")
    manifest = Manifest.read(report.manifest)
    assert {row.group for row in manifest.rows} == {"0", "1", "2", "3"}
    check_warnings(report, r"^DDPM: .* 0 in first and second, .*group pattern '\^\(\.\+\)/'$")


def test_names_that_look_like_series_are_asked_about(tmp_path):
    for name in ("anna_1", "anna_2", "bob_1", "bob_2", "eve_1"):
        save(tmp_path / "source" / "DDPM" / f"{name}.png", len(name) * 7 + ord(name[0]) + int(name[-1]))
    report = import_faces(tmp_path / "source", tmp_path / "out")
    assert re.search("^DDPM: .*anna_1 and anna_2 .*separate groups.*group pattern", report.warnings[0])


def test_photographs_in_a_generators_folder_are_photographs(tmp_path):
    source = tmp_path / "source"
    for index in range(10):
        save(source / "MidJourney" / "fake" / f"{index}.png", index)
        save(source / "MidJourney" / "real" / f"{index}.png", 100 + index)
        save(source / "DDPM" / "train" / "nature" / f"{index}n.png", 200 + index)
    families = tmp_path / "families.yaml"
    families.write_text("MidJourney: {manipulation: EFS, architecture: diffusion}\nreal: {manipulation: none}")
    report = import_faces(source, tmp_path / "out", families=families)
    manifest = Manifest.read(report.manifest)
    for row in manifest.rows:
        assert row.generator == ("MidJourney" if "/fake/" in row.path else "real")
    check_warnings(
        report,
        "^DDPM/train/nature: 10 images .*class 'real', not as DDPM$",
        "^MidJourney/real: 10 images .*class 'real', not as MidJourney$",
        "^DDPM: no images",
    )
    save(source / "FFHQ" / "1_fake" / "a.png", 1)
    with pytest.raises(DataError, match=r"FFHQ/1_fake: expected photographs, as FFHQ says, got a folder of fakes$"):
        import_faces(source, tmp_path / "other", families=families)


def test_splits_are_no_generators(tmp_path):
    source = tmp_path / "source"
    for split in ("train", "val", "test"):
        for index in range(4):
            save(source / split / "DDPM" / f"{split}{index}x.png", index + 10 * len(split))
            save(source / split / "real" / f"{split}{index}x.png", 100 + index + 10 * ord(split[0]))
    report = import_faces(source, tmp_path / "out")
    manifest = Manifest.read(report.manifest)
    assert {row.generator for row in manifest.rows} == {"DDPM", "real"}
    assert len(manifest.rows) == 24
    assert re.search(r"splits .*\(test, train, val\) were not kept", report.warnings[0])
    save(source / "simswap" / "a.png", 1)
    message = r"source: expected a folder per generator, got test, a split, next to simswap$"
    with pytest.raises(DataError, match=message):
        import_faces(source, tmp_path / "other")
    families = tmp_path / "families.yaml"
    families.write_text("".join(f"{name}: {{manipulation: EFS, architecture: GAN}}\n" for name in SPLITS))
    report = import_faces(source, tmp_path / "third", families=families)  # that's what the user calls them
    manifest = Manifest.read(report.manifest)
    assert {"train", "val", "test"} < {row.generator for row in manifest.rows}


def test_folders_of_systems_are_passed_over_and_links_followed(source, tmp_path):
    save(source / "__MACOSX" / "StyleGAN2" / "a.png", 1)
    save(source / "StyleGAN2" / "._03.png", 1)
    save(tmp_path / "elsewhere" / "linked.png", 500)
    (source / "StyleGAN2" / "link").symlink_to(tmp_path / "elsewhere")
    (source / "StyleGAN2" / "loop").symlink_to(source)
    os.mkfifo(source / "StyleGAN2" / "pipe.png")
    (source / "StyleGAN2" / "a.heic").write_bytes(b"")
    report = import_faces(source, tmp_path / "out")
    manifest = Manifest.read(report.manifest)
    assert {row.generator for row in manifest.rows} == {"SD-2.1", "StyleGAN2", "real_faces"}
    assert "StyleGAN2/link/linked.png" in {row.path for row in manifest.rows}
    assert len(manifest.rows) == 61
    assert report.skipped == [
        ("StyleGAN2/pipe.png", "expected a file, got a named pipe"),
        ("StyleGAN2/loop", f"expected each folder once, got a link to {source}"),
    ]
    check_warnings(report, r"^StyleGAN2: .*\(1 \.heic\)$")


def test_the_same_bytes_under_two_generators_are_warned_of(source, tmp_path, caplog):
    save(source / "StyleGAN2" / "copy.png", 3)  # as real_faces/03.png
    report = import_faces(source, tmp_path / "out")
    assert report.mislabeled == [["StyleGAN2/copy.png", "real_faces/03.png"]]
    check_warnings(
        report, ".* 1, such as StyleGAN2/copy.png and real_faces/03.png; .*mislabeled in import_report.json$"
    )
    assert caplog.messages == [f"{tmp_path / 'out'}: {report.warnings[0]}"]


def test_names_that_are_nearly_the_same_are_warned_of(tmp_path):
    for index, name in enumerate(("DDPM", "ddpm", "SD-2.1", "sd_21", "e4s")):
        for shot in range(9):
            save(tmp_path / "source" / name / f"{shot}.png", 10 * index + shot)
    report = import_faces(tmp_path / "source", tmp_path / "out")
    check_warnings(report, "^DDPM, ddpm: .* 2 classes", "^SD-2.1, sd_21: .* 2 classes")
    families = tmp_path / "families.yaml"
    families.write_text("ddpm: {generator: DDPM}\nsd_21: {generator: SD-2.1}\n")
    report = import_faces(tmp_path / "source", tmp_path / "other", families=families)
    assert report.warnings == []
    assert {name: sum(splits.values()) for name, splits in report.images.items()} == {
        "DDPM": 18,
        "SD-2.1": 18,
        "e4s": 9,
    }


@pytest.mark.parametrize(
    "name", ["ddpm ", " ddpm", "dd\x1b[31mpm", "dd\npm", "dd\u202epm", "dd\udcffpm", "d" * 101, "real_\u200b"]
)
def test_refuses_folders_with_names_that_hide_something(tmp_path, name):
    save(tmp_path / "source" / name / "a.png", 1)
    with pytest.raises(DataError) as caught:
        import_faces(tmp_path / "source", tmp_path / "out")
    start = f"{tmp_path / 'source'}: expected folders named in 1 to 100 printable characters without outer spaces, got "
    assert str(caught.value) == start + (repr(name) if len(name) < 80 else f"'{'d' * 76}...")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["no", "null", "1e3", "2024", "it: b", "{x}", "it's", 'say "hi"', "#1", "é", "-"])
def test_the_entry_that_an_error_prints_is_yaml(tmp_path, name):
    save(tmp_path / "source" / name / "a.png", 1)
    with pytest.raises(DataError) as caught:
        import_faces(tmp_path / "source", tmp_path / "out")
    families = tmp_path / "families.yaml"
    families.write_text(str(caught.value).split("YAML file: ")[1], encoding="utf-8")
    manifest = Manifest.read(import_faces(tmp_path / "source", tmp_path / "out", families=families).manifest)
    assert [row.generator for row in manifest.rows] == [name]


def test_what_a_killed_import_left_is_replaced(source, tmp_path):
    script = """
import os, sys
from bmrl.data.importers import assembly
from bmrl.data import import_faces
assembly.shutil.copyfileobj = lambda reading, writing: os.kill(os.getpid(), 9)
import_faces(sys.argv[1], sys.argv[2])
"""
    out = tmp_path / "out"
    result = subprocess.run([sys.executable, "-c", script, str(source), str(out)], check=False)
    assert result.returncode == -9
    assert out.is_dir()
    with pytest.raises(MissingFileError):
        Manifest.read(out)
    manifest = Manifest.read(import_faces(source, out).manifest)
    assert len(manifest.rows) == 60
    assert sorted(path.name for path in out.iterdir()) == [
        "SD-2.1",
        "StyleGAN2",
        "import_report.json",
        "manifest.csv",
        "real_faces",
    ]


def test_two_imports_at_once_are_refused(source, tmp_path):
    with claimed(tmp_path / "out"), pytest.raises(FolderInUseError, match="out: expected a folder that no other"):
        import_faces(source, tmp_path / "out")
    import_faces(source, tmp_path / "out")


def test_a_full_disk_names_the_file_and_leaves_nothing(source, tmp_path):
    Image.effect_noise((400, 400), 100).save(source / "StyleGAN2" / "large.png")
    script = """
import resource, signal, sys
from bmrl.data import import_faces
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    import_faces(sys.argv[1], sys.argv[2])
except ValueError as error:
    print(error)
"""
    out = tmp_path / "out"
    result = subprocess.run(
        [sys.executable, "-c", script, str(source), str(out)], check=True, capture_output=True, text=True
    )
    name = "StyleGAN2/large.png"
    assert result.stdout == f"{out / name}: expected to copy {source / name} here, got: File too large\n"
    assert not out.exists()


def test_arguments_are_checked_before_the_work(source, tmp_path):
    for options, message in (
        ({"unseen": "DDPM"}, "unseen: expected a list of generators, got the text 'DDPM'"),
        ({"symlink": "yes"}, "symlink: expected True or False, got 'yes'"),
        ({"seed": 1.5}, "seed: expected an integer, got 1.5"),
        ({"val": "a"}, "val: expected a number, got 'a'"),
    ):
        with pytest.raises(DTypeError) as caught:
            import_faces(source, tmp_path / "out", **options)
        assert str(caught.value) == message
