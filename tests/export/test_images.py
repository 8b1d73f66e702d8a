from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bmrl.data import Manifest, simulate
from bmrl.errors import DataError, MissingFileError
from bmrl.export.images import read_export_images
from bmrl.images import read_image


def test_a_data_folder_gives_its_test_and_training_images(tmp_path):
    manifest = Manifest.read(simulate(tmp_path, images_per_generator=3, image_size=64).folder)
    test, calibration = read_export_images(tmp_path, 16, calibrate=True)
    assert len(test) == len(manifest.select("test"))
    assert len(calibration) == len(manifest.select("train"))


def test_another_folder_gives_the_images_that_every_command_finds(tmp_path):
    for index in range(5):
        Image.fromarray(np.full((16, 16, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "parsing").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("parsing/a.png", ".hidden/a.png", "._a.png"):
        Image.new("RGB", (16, 16), "white").save(tmp_path / name)
    (tmp_path / "5.png").write_bytes(b"no image")
    test, calibration = read_export_images(tmp_path, 16, calibrate=True)
    levels = [sorted(int(image.unique()) for image in images) for images in (test, calibration)]
    assert sorted(levels[0] + levels[1]) == [0, 1, 2, 3, 4]
    assert read_export_images(tmp_path, 16, calibrate=False).calibration is None
    assert all((image == read_image(tmp_path / f"{int(image.unique())}.png", 16)).all() for image in test)


def test_rejects_folders_without_images(tmp_path):
    with pytest.raises(MissingFileError, match=r"none: expected a folder, got nothing at this path$"):
        read_export_images(tmp_path / "none", 16, calibrate=False)
    with pytest.raises(DataError, match=r"to verify with: expected images that can be read, got none$"):
        read_export_images(tmp_path, 16, calibrate=False)
    (tmp_path / "manifest.csv").mkdir()
    with pytest.raises(DataError, match=r"manifest\.csv: expected a CSV file, got a folder$"):
        read_export_images(tmp_path, 16, calibrate=False)
