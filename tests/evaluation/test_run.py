from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import ImageFile

from bmrl import __version__
from bmrl._files import claimed
from bmrl.data.manifest import Manifest
from bmrl.errors import (
    BMRLError,
    DataError,
    FolderInUseError,
    MissingExtraError,
    MissingFileError,
    OutputError,
    RangeError,
)
from bmrl.evaluation import evaluate, shortcut_baseline, summarize
from bmrl.evaluation.yardsticks import YARDSTICKS
from bmrl.models import build_model, save_model


def test_writes_both_files(model, manifest, tmp_path, expected_probabilities):
    out = tmp_path / "deep" / "out"
    evaluation = evaluate(model, manifest.root, out)
    metrics = evaluation.to_dict()
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "report.html"]
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert evaluation.folder == out
    assert [row.path for row in evaluation.predictions.rows] == list(expected_probabilities)
    expected = torch.tensor(list(expected_probabilities.values()))
    torch.testing.assert_close(evaluation.predictions.probabilities, expected, rtol=0, atol=1e-6)
    assert evaluation.metrics["accuracy"] == metrics["seen"]["accuracy"]
    assert (out / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert metrics["format"] == 2
    assert metrics["bmrl_version"] == __version__
    assert metrics["model"] == {
        "name": "ColorJudge", "folder": None, "image_size": 32,
        "generators": [
            {"name": "red", "manipulation": "EFS", "architecture": "GAN"},
            {"name": "green", "manipulation": "FS", "architecture": "diffusion"},
            {"name": "photo", "manipulation": "none", "architecture": "none"},
        ],
    }  # fmt: skip
    assert metrics["data"] == {"root": str(manifest.root), "split": "test", "num_images": 9, "num_skipped": 0}
    # one of the "red" images is green, so 5 of 6 seen ones are right; gray and dark gray are near 1/3
    assert metrics["seen"]["accuracy"] == pytest.approx(5 / 6)
    assert metrics["seen"]["confusion"] == [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    scores = {path: max(row) for path, row in expected_probabilities.items()}
    seen = [score for path, score in scores.items() if path.split("/")[0] in ("red", "green", "photo")]
    for entry, threshold in zip(metrics["thresholds"], (0.7, 0.9), strict=True):
        assert entry["threshold"] == threshold
        assert entry["seen_acceptance"] == pytest.approx(sum(score >= threshold for score in seen) / 6)
    assert metrics["thresholds"][0]["unseen_rejection"] == pytest.approx(2 / 3)
    assert metrics["detection"]["all"]["accuracy"] == 1.0
    assert metrics["baselines"] == {}


def test_yardsticks_stand_next_to_it(model, manifest, tmp_path):
    found = evaluate(model, manifest, tmp_path / "out")
    assert list(found.yardsticks) == list(YARDSTICKS)
    assert found.yardsticks_left_out == {}
    assert {summary.seen["num_images"] for summary in found.yardsticks.values()} == {6}
    content = found.to_dict()
    assert content["yardsticks"]["thumbnail"]["seen"] == found.yardsticks["thumbnail"].seen
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(yardstick.title in report for yardstick in YARDSTICKS.values())
    for entry in content["best_yardsticks"]:
        values = {name: summary.metrics[entry["metric"]] for name, summary in found.yardsticks.items()}
        assert entry["value"] == max(values.values()) == values[entry["yardstick"]]
        assert entry["better"] == (found.metrics[entry["metric"]] > entry["value"])
    assert len(content["best_yardsticks"]) == 4
    without = evaluate(model, manifest, tmp_path / "out", yardsticks=[])
    assert without.yardsticks == {}
    assert without.to_dict()["yardsticks"] == {}
    test_only = Manifest(manifest.root, tuple(manifest.select(split="test")))
    reasons = evaluate(model, test_only, tmp_path / "out", yardsticks=["thumbnail"]).yardsticks_left_out
    assert list(reasons) == ["thumbnail"]
    assert re.fullmatch(r"data: expected training images of .*two.*, got 0", reasons["thumbnail"])


def test_skipped_images_are_reported(model, manifest, tmp_path):
    (manifest.root / "red/test1.png").write_bytes(b"no picture")
    evaluation = evaluate(model, manifest, tmp_path / "out", yardsticks=[])
    assert evaluation.data["num_images"] == 8
    assert evaluation.data["num_skipped"] == 1
    (skipped,) = evaluation.skipped
    assert skipped.row.path == "red/test1.png"
    (entry,) = evaluation.to_dict()["skipped"]
    assert (entry["path"], entry["generator"], entry["reason"]) == ("red/test1.png", "red", skipped.reason)
    assert "red/test1.png: expected" in entry["reason"]
    assert "red/test1.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_options(model, manifest, tmp_path):
    first = evaluate(model, manifest, tmp_path / "a", thresholds=[0.5], yardsticks=[], batch_size=2)
    assert [entry["threshold"] for entry in first.thresholds] == [0.5]
    only_seen = evaluate(model, manifest, tmp_path / "c", split="train", yardsticks=[])
    assert only_seen.unseen is None


def test_baselines_are_results_or_what_their_json_holds(model, manifest, tmp_path):
    first = evaluate(model, manifest, tmp_path / "a", thresholds=[0.5], yardsticks=[])
    read = json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))
    others = {"evaluation": first, "summary": summarize(first.predictions, [0.5]), "file": read}
    found = evaluate(model, manifest, tmp_path / "b", yardsticks=[], baselines=others)
    assert list(found.baselines) == list(others)
    written = json.loads((tmp_path / "b" / "metrics.json").read_text(encoding="utf-8"))["baselines"]
    expected = {name: read[name] for name in ("seen", "unseen", "thresholds", "detection")}
    assert written == dict.fromkeys(others, expected)
    report = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert all(f'<th class="n">{name}</th>' in report for name in others)


def test_a_saved_model(manifest, tmp_path, small_config):
    save_model(build_model(small_config()), tmp_path / "mine")
    found = evaluate(tmp_path / "mine", manifest, tmp_path / "out", device="cpu", yardsticks=[])
    assert found.model["name"] == "mine"
    assert found.model["folder"] == str(tmp_path / "mine")


def test_same_input_same_files_but_for_the_date(model, manifest, tmp_path):
    texts = []
    for name in ("a", "b"):
        metrics = evaluate(model, manifest, tmp_path / name).to_dict()
        report = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        texts.append((report.replace(metrics.pop("created"), ""), metrics))
    assert texts[0] == texts[1]


def test_failure_leaves_existing_files_alone(model, manifest, tmp_path):
    out = tmp_path / "out"
    evaluate(model, manifest, out, yardsticks=[])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "report.html").unlink()
    (out / "report.html").mkdir()  # the report can't be written over a folder
    with pytest.raises(OutputError, match=r"^out: expected a file, got .*report\.html"):
        evaluate(model, manifest, out, yardsticks=[])
    assert sorted(path.name for path in out.iterdir()) == sorted(before)
    (out / "report.html").rmdir()
    torch.nn.init.constant_(model.sharpness, float("nan"))
    changed = (out / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="expected finite numbers"):
        evaluate(model, manifest, out, yardsticks=[])
    assert (out / "metrics.json").read_bytes() == changed


def test_each_image_is_opened_decoded_and_judged_once(model, manifest, tmp_path, monkeypatch):
    opened, decoded, judged = [], [], []

    def watch(event, arguments):
        if event == "open" and watching and str(arguments[0]).startswith(str(manifest.root)):
            opened.append(Path(str(arguments[0])).relative_to(manifest.root).as_posix())

    def decode(image):
        decoded.append(image)
        prepare(image)

    prepare = ImageFile.ImageFile.load_prepare  # what Pillow calls when it decodes, once per image
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", decode)
    model.register_forward_pre_hook(lambda module, inputs: judged.append(len(inputs[0])))
    watching = True
    sys.addaudithook(watch)
    try:
        evaluation = evaluate(model, manifest, tmp_path / "out", alterations=["half", "crop"])
        assert evaluation.yardsticks
        assert sorted(opened) == sorted(row.path for row in manifest.rows)
        assert len(decoded) == len(manifest.rows)
        assert sum(judged) == 3 * len(manifest.select(split="test"))
        opened.clear()
        decoded.clear()
        trained_on = evaluate(model, manifest, tmp_path / "out", split="train", alterations=[])
        assert sorted(opened) == sorted(row.path for row in manifest.select(split="train"))
        assert len(decoded) == len(opened)
    finally:
        watching = False  # a hook stays for the life of the process
    alone = summarize(shortcut_baseline(manifest, model.config.generators, image_size=32), (0.7, 0.9))
    assert evaluation.yardsticks["color_spectrum"] == alone
    alone = summarize(shortcut_baseline(manifest, model.config.generators, image_size=32, split="train"), (0.7, 0.9))
    assert trained_on.yardsticks["color_spectrum"] == alone


def test_one_evaluation_per_folder(model, manifest, tmp_path):
    out = tmp_path / "out"
    with claimed(out), pytest.raises(FolderInUseError, match="out: expected a folder"):
        evaluate(model, manifest, out)
    assert list(out.iterdir()) == []
    evaluate(model, manifest, out, yardsticks=[])


def test_a_failed_evaluation_leaves_no_folder(model, manifest, tmp_path):
    torch.nn.init.constant_(model.sharpness, float("nan"))
    with pytest.raises(RangeError):
        evaluate(model, manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said_before_the_work(model, manifest, tmp_path, monkeypatch):
    def work(images):
        raise AssertionError("the model ran")

    model.forward = work
    (tmp_path / "file").touch()
    for name, value, message in (
        ("out", tmp_path / "file", "out: expected a folder"),
        ("out", "/proc/none", "out: expected a folder"),
        ("thresholds", [7], "thresholds: expected 0 .. 1, got 7"),
        ("baselines", {"x": {}}, "baselines: of 'x': metrics: expected "),
    ):
        arguments = {"model": model, "data": manifest, "out": tmp_path / "out"} | {name: value}
        with pytest.raises(BMRLError) as raised:
            evaluate(**arguments)
        assert str(raised.value).startswith(message)
    for module, package in (("jinja2", "Jinja2"), ("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtraError, match=f"{package}: not installed"):
                evaluate(model, manifest, tmp_path / "out")


def test_progress_counts_what_could_not_be_read_too(model, manifest, tmp_path):
    (manifest.root / "red/test1.png").write_bytes(b"no picture")
    seen = []
    evaluate(model, manifest, tmp_path / "o", batch_size=4, yardsticks=[], progress=lambda *counts: seen.append(counts))
    assert seen == [(4, 9), (8, 9), (9, 9)]


def test_names_that_are_no_unicode(model, manifest, tmp_path):
    root = manifest.root.with_name("d\udcff")
    manifest.root.rename(root)
    metrics = evaluate(model, root, tmp_path / "o", yardsticks=[]).to_dict()
    assert metrics["data"]["num_images"] == 9
    assert json.loads((tmp_path / "o" / "metrics.json").read_text(encoding="utf-8")) == metrics


def test_rejects(model, manifest, tmp_path):
    with pytest.raises(DataError, match=r"^baselines: of 'x': .* expected .*, got .*'unseen'"):
        evaluate(model, manifest, tmp_path / "out", baselines={"x": {"seen": {"accuracy": 1.0}}})
    with pytest.raises(MissingFileError, match="nowhere"):
        evaluate(model, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(MissingFileError, match="nowhere"):
        evaluate(tmp_path / "nowhere", manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_without_seen_images_is_refused_before_the_work(model, manifest, tmp_path):
    unseen = Manifest(manifest.root, manifest.select(split="test", role="unseen"))
    steps = []
    with pytest.raises(DataError, match=r"^split: expected images of seen generators in the test split .*, got none$"):
        evaluate(model, unseen, tmp_path / "out", progress=lambda *done: steps.append(done))
    assert not steps
    assert not (tmp_path / "out").exists()
