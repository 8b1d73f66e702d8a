from __future__ import annotations

import dataclasses

import pytest
import torch

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError, RangeError, ShapeError
from bmrl.evaluation.predictions import Predictions, predict
from bmrl.images import read_image
from bmrl.models import build_model, save_model


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_probabilities_labels_and_order(model, manifest, expected_probabilities, batch_size):
    found = predict(model, manifest, batch_size=batch_size)
    assert [row.path for row in found.rows] == list(expected_probabilities)
    expected = torch.tensor(list(expected_probabilities.values()))
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-6)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2, -1, -1, -1]
    assert found.seen.tolist() == [True] * 6 + [False] * 3
    assert found.real.tolist() == [False] * 5 + [True, False, False, True]
    assert found.of("gray").nonzero().flatten().tolist() == [6, 7]
    assert found.embeddings.shape == (9, 3)
    assert found.skipped == ()


def test_other_split(model, manifest):
    assert {row.split for row in predict(model, manifest, split="train").rows} == {"train"}
    with pytest.raises(DataError, match=r"split: expected images in the val split of .*data, got none"):
        predict(model, manifest, split="val")


def test_unreadable_images_are_left_out_and_named(model, manifest, expected_probabilities):
    (manifest.root / "red/test1.png").write_bytes(b"no picture")
    (manifest.root / "gray/test0.png").unlink()
    found = predict(model, manifest, batch_size=2)
    kept = [path for path in expected_probabilities if path not in ("red/test1.png", "gray/test0.png")]
    assert [row.path for row in found.rows] == kept
    torch.testing.assert_close(
        found.probabilities, torch.tensor([expected_probabilities[path] for path in kept]), rtol=0, atol=1e-6
    )
    assert [entry.row.path for entry in found.skipped] == ["red/test1.png", "gray/test0.png"]
    for entry in found.skipped:
        assert entry.row.path in entry.reason
        assert "\n" not in entry.reason


def test_nothing_readable_is_an_error(model, manifest):
    for row in manifest.rows:
        manifest.image_path(row).write_bytes(b"")
    with pytest.raises(DataError, match=r"manifest: expected readable images, got 9 unreadable; first: .*test0.png"):
        predict(model, manifest)


def test_read_can_alter_the_images(model, manifest):
    """The hook that a robustness sweep needs: here red and blue change places."""
    swapped = predict(model, manifest, read=lambda source, size: read_image(source, size).flip(0))
    plain = predict(model, manifest)
    torch.testing.assert_close(swapped.probabilities, plain.probabilities.flip(1))


def test_roles_must_fit_the_model(model, manifest):
    def with_role(name, role):
        rows = manifest.select(split="test")
        changed = (dataclasses.replace(row, role=role) if row.generator == name else row for row in rows)
        return Manifest(manifest.root, tuple(changed))

    with pytest.raises(
        DataError,
        match=r"manifest: expected seen generators to be classes of the model \(green, photo, red\), got seen 'gray'",
    ):
        predict(model, with_role("gray", "seen"))
    with pytest.raises(
        DataError,
        match=r"manifest: expected unseen generators not to be classes .*, got unseen 'red' \(red/test0.png\)",
    ):
        predict(model, with_role("red", "unseen"))


def test_a_real_model_from_its_folder(manifest, tmp_path, small_config):
    torch.manual_seed(0)
    network = build_model(small_config())
    save_model(network, tmp_path / "model")
    found = predict(tmp_path / "model", manifest, device="cpu", batch_size=4)
    images = torch.stack([read_image(manifest.image_path(row), 32) for row in found.rows])
    with torch.no_grad():
        expected = network.eval()(images)
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.embeddings, expected.embedding, rtol=1e-4, atol=1e-5)


def test_training_mode_is_used_for_nothing_and_put_back(manifest, small_config):
    torch.manual_seed(0)
    network = build_model(small_config(dropout=0.5))
    network.train()
    network.head.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = predict(network, manifest, batch_size=2), predict(network, manifest, batch_size=9)
    torch.testing.assert_close(first.probabilities, second.probabilities, rtol=1e-4, atol=1e-5)
    assert network.training
    assert not network.head.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_model_that_returns_nan_is_an_error(model, manifest):
    torch.nn.init.constant_(model.sharpness, float("nan"))
    with pytest.raises(RangeError, match=r"probabilities: expected finite numbers, got nan at \(0, 0\)"):
        predict(model, manifest)


def test_half_precision_models_are_accepted(model, manifest, expected_probabilities):
    found = predict(model.half(), manifest)
    expected = torch.tensor(list(expected_probabilities.values()))
    torch.testing.assert_close(found.probabilities.float(), expected, rtol=0, atol=1e-2)


def test_sizes_must_agree(classes):
    row = Row("a.png", "red", "EFS", "GAN", "seen", "test", "a")
    with pytest.raises(ShapeError, match=r"probabilities: expected \(2, 3\), got \(1, 3\)"):
        Predictions(classes, (row, row), torch.full((1, 3), 1 / 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"embeddings: expected \(1, dim\), got \(2, 4\)"):
        Predictions(classes, (row,), torch.full((1, 3), 1 / 3), torch.zeros(2, 4))
