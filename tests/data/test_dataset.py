from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from bmrl.data import import_faces, simulate
from bmrl.data.dataset import FaceDataset
from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError, RangeError
from bmrl.parsing import PARSING_CLASSES

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 8


def row(path: str, generator: str = "ddpm", *, role: str = "seen", split: str = "train") -> Row:
    family = ("none", "none") if generator == "real" else ("EFS", "diffusion")
    return Row(path, generator, *family, role, split, path)


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def noise(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def classes(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 19, (height, width), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five seen training images of two generators (two of them with a map), one seen and two unseen for the test."""
    for index in range(8):
        save(tmp_path / f"{index}.png", noise(SIZE, SIZE, index))
    for index in (0, 3):
        save(tmp_path / "parsing" / f"{index}.png", classes(SIZE, SIZE, index))
    return tmp_path


def manifest_of(folder: Path) -> Manifest:
    seen = [row(f"{index}.png", "real" if index % 2 else "ddpm") for index in range(5)]
    tested = [row("5.png", split="test"), *(row(f"{i}.png", "e4s", role="unseen", split="test") for i in (6, 7))]
    return Manifest(folder, (*seen, *tested))


def dataset(folder: Path, **options: object) -> FaceDataset:
    manifest = manifest_of(folder)
    arguments = {"split": "train", "image_size": SIZE, "generators": manifest.generators("seen")}
    return FaceDataset(manifest, **{**arguments, **options})


@pytest.mark.parametrize(
    "options", [{}, {"cache": False}, {"cache_bytes": 2 * 4 * SIZE * SIZE}], ids=["all", "none", "two"]
)
def test_samples(folder, options):
    data = dataset(folder, **options)
    assert len(data) == 5
    assert data.num_parsing == 2
    assert data.skipped == []
    for _ in range(2):  # the second epoch gives the same
        for index in range(5):
            sample = data[index]
            assert sorted(sample) == ["has_parsing", "image", "index", "label", "parsing"]
            assert sample["image"].dtype == sample["parsing"].dtype == torch.uint8
            assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), noise(SIZE, SIZE, index))
            assert sample["label"] == (1 if index % 2 else 0)  # ddpm, real
            assert sample["index"] == index
            assert data.rows[index].path == f"{index}.png"
            assert sample["has_parsing"] is (index in (0, 3))
            expected = classes(SIZE, SIZE, index) if index in (0, 3) else np.zeros((SIZE, SIZE))
            assert np.array_equal(sample["parsing"].numpy(), expected)


def test_the_cache_reads_no_file_twice_and_can_not_be_changed(folder):
    data = dataset(folder)
    (folder / "0.png").unlink()
    data[0]["image"].zero_()
    data[0]["parsing"].zero_()
    assert np.array_equal(data[0]["image"].permute(1, 2, 0).numpy(), noise(SIZE, SIZE, 0))
    assert np.array_equal(data[0]["parsing"].numpy(), classes(SIZE, SIZE, 0))


def test_the_cache_keeps_to_its_budget(folder):
    data = dataset(folder, cache_bytes=3 * 4 * SIZE * SIZE)
    for index in range(5):
        (folder / f"{index}.png").unlink()
    assert [data[index]["label"] for index in range(3)] == [0, 1, 0]
    assert data[3]["index"] == 0  # 3 and 4 are gone


def test_an_image_that_vanishes_is_replaced_with_a_warning(folder, caplog):
    data = dataset(folder, cache=False, parsing=False)
    assert data.skipped == []
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:-60])
    caplog.clear()
    for _ in range(2):  # the second epoch does not try again
        for index in (1, 2, 3):
            sample = data[index]
            assert sample["index"] == 3
            assert sample["label"] == data.labels[3]
            assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), noise(SIZE, SIZE, 3))
    assert [path for path, _ in data.skipped] == ["1.png", "2.png"]
    assert data.skipped[0][1] == "expected an image file, got nothing at this path"
    assert len(caplog.messages) == 2
    assert caplog.messages[0] == (
        f"{folder}: 1.png: expected an image file, got nothing at this path; the next image replaces it"
    )
    assert len(data) == 5


def test_a_lost_disk_is_an_error(folder):
    data = dataset(folder, cache=False)
    for index in range(5):
        (folder / f"{index}.png").unlink()
    message = r"expected readable images, got 5 in a row that can't be read any more, the last 1\.png \("
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            data[2]


def test_images_beyond_the_cache_are_not_decoded_at_construction(folder, monkeypatch):
    """Only what the header tells is known of them: the formats, the sizes, that there is a file at all."""
    (folder / "1.png").write_bytes(b"no image")
    (folder / "2.png").unlink()
    save(folder / "parsing" / "3.png", classes(SIZE, SIZE + 1, 0))
    save(folder / "parsing" / "4.png", noise(SIZE, SIZE, 0))
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:-60])  # that takes decoding
    data = dataset(folder, cache=False)
    assert [(path, reason.split(",")[0]) for path, reason in data.skipped] == [
        ("1.png", "expected an image (JPEG"),
        ("2.png", "expected an image file"),
    ]
    assert [row.path for row in data.rows] == ["0.png", "3.png", "4.png"]
    assert data.parsing_skipped == [
        ("3.png", "expected the image's 8 x 8 pixels, got 8 x 9"),
        ("4.png", "expected a PNG of 8-bit indices, got PNG in mode RGB"),
    ]
    assert data.num_parsing == 1
    assert data[0]["index"] == 1


def test_labels_follow_the_order_of_the_generators(folder):
    ddpm, real = manifest_of(folder).generators("seen")
    assert dataset(folder, generators=(real, ddpm)).labels == (1, 0, 1, 0, 1)


def test_unseen_images_are_labeled_minus_one(folder):
    assert dataset(folder, split="test", role="unseen").labels == (-1, -1)
    assert dataset(folder, split="test", role=None).labels == (0, -1, -1)


def test_batches(folder):
    batch = next(iter(DataLoader(dataset(folder), batch_size=5, num_workers=1)))
    assert batch["image"].shape == (5, 3, SIZE, SIZE)
    assert batch["image"].dtype == torch.uint8
    assert batch["parsing"].shape == (5, SIZE, SIZE)
    assert batch["has_parsing"].tolist() == [True, False, False, True, False]
    assert batch["label"].tolist() == [0, 1, 0, 1, 0]
    assert batch["label"].dtype == torch.int64
    assert batch["index"].tolist() == [0, 1, 2, 3, 4]


def test_parsing_can_be_off(folder):
    data = dataset(folder, parsing=False)
    assert (data.num_parsing, data.parsing_skipped) == (0, [])
    assert not data[0]["has_parsing"]
    assert data[0]["parsing"].tolist() == [[0] * SIZE] * SIZE


def test_transform_gets_the_sample(folder):
    def flip(sample):
        return {**sample, "image": sample["image"].flip(-1)}

    flipped = dataset(folder, transform=flip)[1]["image"]
    assert np.array_equal(flipped.permute(1, 2, 0).numpy(), noise(SIZE, SIZE, 1)[:, ::-1])


def test_indices(folder):
    data = dataset(folder)
    assert data[-1]["index"] == 4
    with pytest.raises(IndexError):
        data[5]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 24))
def test_the_map_stays_on_the_image(tmp_path_factory, width, height, size):
    """A map whose classes are the columns and rows of the image shows the same square, at the nearest pixel."""
    folder = tmp_path_factory.mktemp("data")
    save(folder / "a.png", noise(width, height, 0))
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 19
    save(folder / "parsing" / "a.png", ramp.astype(np.uint8))
    manifest = Manifest(folder, (row("a.png"),))
    sample = FaceDataset(manifest, split="train", image_size=size, generators=manifest.generators())[0]
    side = min(width, height)
    centers = (np.arange(size) + 0.5) * side / size
    below, above = ((centers + eps).astype(int) for eps in (-1e-6, 1e-6))  # on an edge either neighbor is right
    matches = [
        sample["parsing"].numpy() == ramp[np.ix_((height - side) // 2 + rows, (width - side) // 2 + columns)]
        for rows in (below, above)
        for columns in (below, above)
    ]
    assert np.any(matches, axis=0).all()


def test_unreadable_images_are_left_out_and_listed(folder, caplog):
    (folder / "0.png").write_bytes(b"no image")
    (folder / "2.png").unlink()
    with caplog.at_level(logging.WARNING):
        data = dataset(folder, parsing=False)
    expected = [
        ("0.png", "expected an image (JPEG, PNG, WebP, BMP, TIFF, GIF), got other data that starts with b'no image'"),
        ("2.png", "expected an image file, got nothing at this path"),
    ]
    assert data.skipped == expected
    assert [row.path for row in data.rows] == ["1.png", "3.png", "4.png"]
    assert data.labels == (1, 1, 0)
    for index, number in enumerate((1, 3, 4)):
        assert np.array_equal(data[index]["image"].permute(1, 2, 0).numpy(), noise(SIZE, SIZE, number))
    reasons = "; ".join(f"{path} ({reason})" for path, reason in expected)
    assert caplog.messages == [f"{folder}, seen images of split train: skipped 2 ({reasons}) of 5"]


def test_unusable_maps_are_left_out_and_listed(folder, caplog):
    maps = folder / "parsing"
    save(maps / "0.png", np.full((SIZE, SIZE), 19, np.uint8))
    save(maps / "1.png", classes(SIZE, SIZE + 1, 0))
    save(maps / "2.png", noise(SIZE, SIZE, 0))
    (maps / "3.png").write_bytes((maps / "3.png").read_bytes()[:-30])
    save(maps / "4.png", classes(SIZE, SIZE, 0), format="BMP")
    with caplog.at_level(logging.WARNING):
        data = dataset(folder)
    assert data.num_parsing == 0
    assert [path for path, _ in data.parsing_skipped] == [f"{index}.png" for index in range(5)]
    assert [reason.split(":")[0] for _, reason in data.parsing_skipped] == [
        "expected class indices 0 to 18, got 19",
        "expected the image's 8 x 8 pixels, got 8 x 9",
        "expected a PNG of 8-bit indices, got PNG in mode RGB",
        "expected a whole, valid image, got",
        "expected a PNG of 8-bit indices, got BMP in mode L",
    ]
    assert not any(data[index]["has_parsing"] or data[index]["parsing"].any() for index in range(5))
    assert caplog.messages[0].startswith(
        f"{folder}, seen images of split train: no parsing map for 5 (0.png (expected class"
    )
    assert caplog.messages[0].endswith("; ...) of 5")


def test_maps_with_a_palette_hold_indices(folder):
    image = Image.fromarray(classes(SIZE, SIZE, 0)).convert("P")
    image.putpalette([255 - i for i in range(256) for _ in range(3)])
    image.putdata(classes(SIZE, SIZE, 0).ravel().tolist())
    image.save(folder / "parsing" / "0.png")
    assert np.array_equal(dataset(folder)[0]["parsing"].numpy(), classes(SIZE, SIZE, 0))


def test_rejects_what_leaves_nothing(folder):
    with pytest.raises(DataError) as caught:
        dataset(folder, split="val")
    assert str(caught.value) == f"{folder}, seen images of split val: expected at least one, got none"
    (folder / "5.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        dataset(folder, split="test")
    expected = "expected a readable one, got 1 (5.png (expected an image, got no bytes))"
    assert str(caught.value) == f"{folder}, seen images of split test: {expected}"


def test_rejects_generators_that_do_not_fit(folder):
    ddpm, real = manifest_of(folder).generators("seen")
    (e4s,) = manifest_of(folder).generators("unseen")
    with pytest.raises(DataError, match=r"^1\.png, column generator: expected one of ddpm, got seen 'real'$"):
        dataset(folder, generators=(ddpm,))
    message = r"^6\.png, column generator: expected a generator that the model does not know, got unseen 'e4s'$"
    with pytest.raises(DataError, match=message):
        dataset(folder, split="test", role="unseen", generators=(ddpm, real, e4s))


def test_rejects_values_out_of_range(folder):
    with pytest.raises(RangeError, match="image_size: expected an integer >= 1 and <= 16384, got 0"):
        dataset(folder, image_size=0)
    with pytest.raises(RangeError, match="cache_bytes: expected an integer >= 0, got -1"):
        dataset(folder, cache_bytes=-1)
    with pytest.raises(RangeError, match="split: expected 'train' or 'val' or 'test', got 'dev'"):
        dataset(folder, split="dev")


def test_a_map_of_a_turned_image_passes_before_it_is_decoded(folder):
    """The header gives the size as stored, the map has that of the upright image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 12)).save(folder / "0.png", exif=exif)
    save(folder / "parsing" / "0.png", classes(12, 8, 0))
    data = dataset(folder, cache=False)
    assert data.num_parsing == 2
    assert data[0]["has_parsing"]


OFFICIAL = (  # CelebAMask-HQ's g_mask.py, as names
    *("background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)


def test_maps_in_another_order_are_warned_of(tmp_path, caplog):
    """Maps of simulated faces, whose classes are known, are as they should be; reordered they are not."""
    manifest = Manifest.read(simulate(tmp_path, images_per_generator=3, image_size=64).folder)
    options = {"split": "train", "image_size": 64, "generators": manifest.generators("seen")}
    FaceDataset(manifest, **options)
    assert caplog.messages == []
    reorder = np.array([OFFICIAL.index(name) for name in PARSING_CLASSES], np.uint8)
    for path in (tmp_path / "parsing").rglob("*.png"):
        Image.fromarray(reorder[np.asarray(Image.open(path))]).save(path)
    FaceDataset(manifest, **options)
    assert len(caplog.messages) == 1
    assert "expected the order of BiSeNet, where class 13 is the lower lip, got maps with" in caplog.messages[0]

    for name in ("manifest.csv", "simulated.json", "contact_sheet.png"):
        (tmp_path / name).unlink()
    families = tmp_path.parent / f"{tmp_path.name}.yaml"
    families.write_text("".join(f"{g.name}: {{manipulation: none}}\n" for g in manifest.generators()))
    report = import_faces(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", families=families)
    assert sum("CelebAMask-HQ's own order; convert them first" in warning for warning in report.warnings) == 1


def test_a_data_set_without_maps_is_one_short_line(folder, caplog):
    """Maps are optional: where there is no folder of them, no image is listed for having none."""
    shutil.rmtree(folder / "parsing")
    data = dataset(folder)
    assert (data.num_parsing, len(data.parsing_skipped)) == (0, 5)
    assert caplog.messages == [f"{folder}, seen images of split train: no parsing maps, got no folder parsing"]
