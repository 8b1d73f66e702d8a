from __future__ import annotations

import dataclasses

import pytest
import torch

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import DataError, MissingFileError, RangeError, ShapeError
from bmrl.evaluation import Predictions, predict
from bmrl.images import read_image
from bmrl.inference import Attributor
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
    assert found.embeddings.shape == (9, 8)
    assert found.skipped == ()


def test_other_split(model, manifest):
    assert {row.split for row in predict(model, manifest, split="train").rows} == {"train"}
    with pytest.raises(DataError, match=r"^split: expected .* val .*, got none"):
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
    with pytest.raises(DataError, match=r"^data: expected readable images, got 9 unreadable.*test0.png"):
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
        match=r"^data: expected .*\(green, photo, red\), got seen 'gray'",
    ):
        predict(model, with_role("gray", "seen"))
    with pytest.raises(
        DataError,
        match=r"^data: expected .*, got unseen 'red' \(red/test0.png\)",
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
    network = build_model(small_config(**{"*.dropout": 0.5}))
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


def test_a_folder_stands_for_its_manifest(model, manifest):
    expected = predict(model, manifest)
    for data in (manifest.root, str(manifest.root)):
        found = predict(model, data)
        assert found.rows == expected.rows
        assert torch.equal(found.probabilities, expected.probabilities)
    with pytest.raises(MissingFileError, match="nowhere"):
        predict(model, manifest.root / "nowhere")


def test_select_keeps_what_belongs_together(model, manifest):
    found = predict(model, manifest)
    some = found.select(found.of("green") | found.of("gray"))
    assert [row.path for row in some.rows] == [f"{name}/test{n}.png" for name in ("green", "gray") for n in (0, 1)]
    places = [3, 4, 6, 7]
    assert torch.equal(some.probabilities, found.probabilities[places])
    assert torch.equal(some.embeddings, found.embeddings[places])
    assert some.labels.tolist() == [1, 1, -1, -1]
    assert torch.equal(some.decisions.scores, found.decisions.scores[places])
    assert found.unseen_generators == ["gray", "snapshot"]


def test_its_answers_are_those_of_an_attributor(model, manifest):
    paths = [manifest.image_path(row) for row in manifest.select(split="test")]
    expected = Attributor(model, threshold=0.9)(paths)
    found = predict(model, manifest).attributions(0.9)
    assert [answer.source for answer in found] == [row.path for row in manifest.select(split="test")]
    for answer, other in zip(found, expected, strict=True):
        assert dataclasses.replace(answer, source=other.source) == other
    assert {answer.seen for answer in found} == {True, False}


def test_sizes_must_agree(classes):
    row = Row("a.png", "red", "EFS", "GAN", "seen", "test", "a")
    with pytest.raises(ShapeError, match=r"probabilities: expected \(2, 3\), got \(1, 3\)"):
        Predictions(classes, (row, row), torch.full((1, 3), 1 / 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"embeddings: expected \(1, dim\), got \(2, 4\)"):
        Predictions(classes, (row,), torch.full((1, 3), 1 / 3), torch.zeros(2, 4))
