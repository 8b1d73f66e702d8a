from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError, MissingExtraError, RangeError
from bmrl.evaluation import shortcut_baseline
from bmrl.evaluation.image_statistics import color_spectrum_statistics
from bmrl.evaluation.yardsticks import YARDSTICKS, best_yardsticks, describers, fit_yardsticks
from bmrl.generators import Generator
from bmrl.images import read_image

BRIGHTNESS = {"dark": 60, "light": 190, "mid": 125}


@pytest.fixture
def noisy(tmp_path):
    """Gray noise whose brightness gives the generator away, and nothing else."""
    rng = np.random.default_rng(0)
    rows = []
    for name, level in BRIGHTNESS.items():
        for number in range(14):
            split, role = ("train" if number < 8 else "test"), "seen"
            pixels = np.clip(rng.normal(level, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{name}{number}.png")
            rows.append(Row(f"{name}{number}.png", name, "EFS", "GAN", role, split, f"{name}{number}"))
    for number in range(3):
        Image.new("RGB", (32, 32), (250, 0, 0)).save(tmp_path / f"other{number}.png")
        rows.append(Row(f"other{number}.png", "other", "FS", "GAN", "unseen", "test", f"other{number}"))
    return Manifest(tmp_path, tuple(rows))


def test_finds_the_shortcut(noisy):
    found = shortcut_baseline(noisy, image_size=32)
    assert [generator.name for generator in found.generators] == ["dark", "light", "mid"]
    assert len(found.rows) == 21
    named = [found.generators[label].name for label in found.probabilities.argmax(dim=1)]
    right = [name == row.generator for name, row in zip(named, found.rows, strict=True)]
    assert sum(right[:18]) >= 15  # 6 by chance
    assert found.embeddings.shape == (21, 26)


def test_equals_a_regression_fitted_by_hand(noisy):
    dropped = {"dark0.png", "dark1.png", "dark2.png", "dark3.png", "dark4.png", "mid0.png"}  # classes of unequal size
    noisy = Manifest(noisy.root, tuple(row for row in noisy.rows if row.path not in dropped))

    def statistics(split):
        rows = noisy.select(split=split)
        images = torch.stack([read_image(noisy.image_path(row), 32) for row in rows])
        return rows, color_spectrum_statistics(images).double().numpy()

    train, x = statistics("train")
    _, test_x = statistics("test")
    center, scale = x.mean(axis=0), x.std(axis=0)
    regression = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
    regression.fit((x - center) / scale, [row.generator for row in train])
    expected = regression.predict_proba((test_x - center) / scale)
    found = shortcut_baseline(noisy, image_size=32)
    np.testing.assert_allclose(found.probabilities.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.embeddings.numpy(), (test_x - center) / scale, atol=1e-9)


def test_classes_come_in_the_given_order_and_an_untrained_one_gets_nothing(noisy):
    classes = [
        Generator(name=name, manipulation="EFS", architecture="GAN") for name in ("mid", "empty", "light", "dark")
    ]
    found = shortcut_baseline(noisy, classes, image_size=32)
    plain = shortcut_baseline(noisy, image_size=32)
    torch.testing.assert_close(found.probabilities[:, [3, 2, 0]], plain.probabilities, rtol=1e-4, atol=1e-5)
    assert (found.probabilities[:, 1] == 0).all()


def test_number_of_train_images_is_limited_evenly(noisy):
    kept = {"dark0", "dark2", "dark4", "dark6"} | {"light0", "light2", "light4", "light6"}
    kept |= {"mid0", "mid2", "mid4", "mid6"}
    rows = [row for row in noisy.rows if row.split == "test" or row.path.removesuffix(".png") in kept]
    expected = shortcut_baseline(Manifest(noisy.root, tuple(rows)), image_size=32)
    found = shortcut_baseline(noisy, image_size=32, max_per_generator=4)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    assert not torch.allclose(found.probabilities, shortcut_baseline(noisy, image_size=32).probabilities)


def test_skips_unreadable_images(noisy):
    (noisy.root / "dark0.png").write_bytes(b"")  # train
    (noisy.root / "dark9.png").write_bytes(b"")  # test
    found = shortcut_baseline(noisy, image_size=32)
    assert len(found.rows) == 20
    assert [entry.row.path for entry in found.skipped] == ["dark9.png"]


def test_rejects(noisy, monkeypatch):
    one = Manifest(noisy.root, tuple(row for row in noisy.rows if row.generator in ("dark", "other")))
    with pytest.raises(DataError, match=r"^data: expected .*two.*, got 1"):
        shortcut_baseline(one, image_size=32)
    test_only = Manifest(noisy.root, tuple(noisy.select(split="test")))
    with pytest.raises(DataError, match=r"^data: expected .*two.*, got 0"):
        shortcut_baseline(test_only, image_size=32)
    with pytest.raises(DataError, match=r"^data: expected images .*, got none"):
        shortcut_baseline(noisy, image_size=32, split="val")
    with pytest.raises(RangeError, match=r"max_per_generator: expected an integer >= 1, got 0"):
        shortcut_baseline(noisy, max_per_generator=0)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"^scikit-learn: not installed.*\[train\]"):
        shortcut_baseline(noisy)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_features_of_every_yardstick(name):
    made, left_out = describers([name], 32)
    assert left_out == {}
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    found = made[name](images)
    widths = {"color_spectrum": 26, "thumbnail": 192, "color_residuals": 161, "residuals": 465, "backbone": 1024}
    assert (found.shape, found.dtype) == ((3, widths[name]), torch.float64)
    assert found.isfinite().all()
    torch.testing.assert_close(made[name](images[1:2]), found[1:2], rtol=1e-4, atol=1e-4)
    assert YARDSTICKS[name].explanation.startswith(f"{widths[name]:,} numbers: ")


def test_a_thumbnail_is_the_mean_of_each_cell():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    (found,) = (describe(images) for describe in describers(["thumbnail"], 32)[0].values())
    expected = images.double().reshape(2, 3, 8, 4, 8, 4).mean(dim=(3, 5)).flatten(1) / 255
    torch.testing.assert_close(found, expected)


def test_all_at_once_are_each_alone(noisy):
    made, _ = describers(["thumbnail", "color_spectrum"], 32)
    both = fit_yardsticks(noisy, describe=made, image_size=32)
    torch.testing.assert_close(
        both["color_spectrum"].probabilities, shortcut_baseline(noisy, image_size=32).probabilities
    )
    named = both["thumbnail"].probabilities.argmax(dim=1)
    right = [
        both["thumbnail"].generators[label].name == row.generator
        for label, row in zip(named, noisy.select(split="test"), strict=True)
    ]
    assert sum(right) >= 15


def test_what_cannot_be_computed_is_left_out_with_the_reason(monkeypatch):
    made, left_out = describers(["residuals", "thumbnail"], 16)
    assert list(made) == ["thumbnail"]
    assert left_out == {"residuals": "expected images of 32 px or more, got 16"}
    monkeypatch.setitem(sys.modules, "timm", None)
    made, left_out = describers(["backbone"], 64)
    assert made == {}
    assert left_out["backbone"].startswith("timm: not installed")
    with pytest.raises(RangeError, match=r"^yardsticks: expected 'color_spectrum' or .*, got 'luck'"):
        describers(["luck"], 64)


def test_the_best_yardstick_is_found_for_each_metric():
    class Given:
        def __init__(self, **metrics):
            self.metrics = metrics

    model = Given(accuracy=0.8, balanced_accuracy=0.5, auroc=0.7, oscr=None)
    first = Given(accuracy=0.7, balanced_accuracy=0.6, auroc=None, oscr=0.5)
    second = Given(accuracy=0.8, balanced_accuracy=0.4, auroc=0.6, oscr=0.5)
    found = best_yardsticks(model, {"first": first, "second": second})
    assert [tuple(entry.values()) for entry in found] == [
        ("accuracy", 0.8, "second", 0.8, False),
        ("balanced_accuracy", 0.5, "first", 0.6, False),
        ("auroc", 0.7, "second", 0.6, True),
    ]
    assert best_yardsticks(model, {}) == []
