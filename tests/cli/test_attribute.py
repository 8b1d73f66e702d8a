"""``bmrl attribute``: an entry for every input, in order, in every format."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from bmrl.cli.main import main
from bmrl.errors import ServerUnavailableError
from bmrl.inference.attributor import Attributor


@pytest.fixture
def inputs(tmp_path, image):
    """Ten arguments, good and bad, and what becomes of each."""
    for name in ("empty", "x.png", "nested/below", "only"):
        (tmp_path / name).mkdir(parents=True)
    for target in ("x.png/b.png", "nested/c.png", "nested/below/d.png", "nested/.hidden.png"):
        shutil.copy(image, tmp_path / target)
    (tmp_path / "nested" / "e.HEIC").touch()
    (tmp_path / "only" / "f.heic").touch()
    (tmp_path / "g.png").write_text("no picture")
    os.mkfifo(tmp_path / "nested" / "pipe.png")
    names = ["a.png", "empty", "n" * 300 + ".png", "x.png", "a.png", "g.png", "nested", "only", "-", "missing.png"]
    answers = {"a.png": ["a.png"], "x.png": ["x.png/b.png"], "nested": ["nested/c.png", "nested/below/d.png"]}
    expected = [(source, name in answers) for name in names for source in answers.get(name, [name])]
    return names, expected


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_one_bad_input_loses_no_other_answer(model, inputs, capsys):
    names, expected = inputs
    assert main(["attribute", str(model), *names, "--json"]) == 1
    out, err = capsys.readouterr()
    entries = json.loads(out)
    assert sorted((entry["source"], "error" not in entry) for entry in entries) == sorted(expected)
    assert [entry["source"] for entry in entries if "/" not in entry["source"]] == [
        source for source, _ in expected if "/" not in source
    ]
    for entry in entries:
        if "error" in entry:
            assert set(entry) == {"source", "error"}
            assert f"bmrl: error: {entry['error']}\n" in err
            assert entry["source"] in entry["error"]
    assert "bmrl: skipped 2 .heic: expected JPEG, PNG, WebP, BMP, TIFF or GIF\n" in err
    assert "bmrl: skipped nested/pipe.png: expected a file, got a named pipe\n" in err
    assert len(err.splitlines()) == 2 + 6


def test_answers_are_those_of_the_library_in_every_format(model, inputs, capsys):
    names, _ = inputs
    main(["attribute", str(model), *names, "--format", "json"])
    entries = json.loads(capsys.readouterr().out)
    main(["attribute", str(model), *names, "--format", "jsonl"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == entries
    main(["attribute", str(model), *names, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["source"] for row in rows] == [
        f"'{entry['source']}" if entry["source"] == "-" else entry["source"] for entry in entries
    ]
    good = [entry["source"] for entry in entries if "error" not in entry]
    wanted = iter(Attributor(model)(good))
    for entry, row in zip(entries, rows, strict=True):
        if "error" in entry:
            assert row["error"].removeprefix("'") == entry["error"]
            assert {value for name, value in row.items() if name not in ("source", "error")} == {""}
        else:
            same = next(wanted).to_dict()
            probabilities = same.pop("probabilities")
            assert entry.pop("probabilities") == pytest.approx(probabilities)
            assert entry == pytest.approx(same)
            assert row["seen"] == str(entry["seen"]).lower()
            assert row["generator"] == (entry["generator"] or "")
            assert float(row["probability of ddpm, v1"]) == pytest.approx(probabilities["ddpm, v1"])
            assert float(row["threshold"]) == 0.25
    main(["attribute", str(model), *names])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["image", *good]


@pytest.mark.parametrize(
    "arguments",
    [
        "{m} --json a.png",
        "--json {m} a.png",
        "--format json {m} a.png",
        "{m} a.png --json",
        "--device cpu {m} --batch-size 1 a.png --json --verbose",
    ],
)
def test_options_stand_anywhere(model, image, capsys, arguments):
    assert main(["attribute", *arguments.format(m=model).split()]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["source"] == "a.png"


def test_names_that_look_like_options_follow_two_dashes(model, image, capsys):
    shutil.copy(image, "--json")
    assert main(["attribute", str(model), "--format", "jsonl", "--", "--json", "a.png"]) == 0
    assert [json.loads(line)["source"] for line in capsys.readouterr().out.splitlines()] == ["--json", "a.png"]


@pytest.mark.parametrize("name", ['a,"b".png', "line\nbreak.png", "=1+1.png", "@x.png", "+1.png", "-1.png", "ä€.png"])
def test_csv_is_safe_in_a_spreadsheet(model, image, capsys, name):
    shutil.copy(image, name)
    assert main(["attribute", str(model), "--format", "csv", "--", name]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["source"] == (f"'{name}" if name[0] in "=@+-" else name)
    assert float(row["probability"]) >= 0.5


HOSTILE = "a\x1b]0;owned\x07\r\nbmrl: error: b\x9b31m\u202e\x85.png"


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
@pytest.mark.parametrize("exists", [True, False])
def test_no_name_reaches_the_terminal_raw(model, image, capsys, form, exists):
    if exists:
        shutil.copy(image, HOSTILE.replace("/", ""))
    assert main(["attribute", str(model), HOSTILE, "--format", form]) == int(not exists)
    out, err = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in out + err)
    assert len(err.splitlines()) == int(not exists)
    if exists and form == "table":
        assert len(out.splitlines()) == 2


def test_usage_errors_are_printable(capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["attribute", "m", "--option\x1b[31m\nx"])
    err = capsys.readouterr().err
    assert err.endswith("\\x1b[31m\\nx\n")
    assert "\x1b" not in err


def test_a_folder_that_may_not_be_read_is_an_error(image, environment):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (closed := folder / "closed").mkdir()
        shutil.copy(image, folder)
        closed.chmod(0)
        names = [name, str(closed), str(folder / "a.png")]
        # Root may read everything, and so becomes another user.
        script = f"""
import os
import bmrl.data.finding
from bmrl.cli.inputs import images_of
if os.geteuid() == 0:
    os.setuid(65534)
for item in images_of({names!r}).items:
    print(item if isinstance(item, str) else f"{{item.source}} | {{item.error}}")
"""
        found = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        error = f"{closed} | {closed}: expected a readable folder, got: Permission denied"
        assert found.stdout.splitlines() == [f"{folder}/a.png", error, error, f"{folder}/a.png"]


def test_a_folder_with_a_broken_manifest_loses_no_other_answer(model, image, capsys):
    (broken := image.parent / "data").mkdir()
    (broken / "manifest.csv").write_text("path,generator\n")
    assert main(["attribute", str(model), "a.png", "data", "a.png", "--json"]) == 1
    out, err = capsys.readouterr()
    first, second, third = json.loads(out)
    assert first == third
    assert second["source"] == "data"
    assert "expected one column manipulation" in second["error"]
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["nowhere", "a.png"], ["--server", "h", "a.png"]])
def test_json_is_valid_when_nothing_could_be_asked(image, capsys, arguments):
    assert main(["attribute", *arguments, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert len(err.splitlines()) == 1


def test_the_threshold_of_the_command_line_decides(model, image, capsys):
    """Without one, the first of the model decides."""
    for options, limit in (([], 0.25), (["--threshold", "0.99"], 0.99)):
        main(["attribute", str(model), "a.png", "--json", *options])
        (entry,) = json.loads(capsys.readouterr().out)
        assert (entry["threshold"], entry["seen"]) == (limit, limit == 0.25)


def test_stays_quiet_about_odd_files(model, image, capfd, recwarn):
    odd = image.with_name("odd.tif")
    Image.new("RGB", (40, 40)).save(odd)
    data = bytearray(odd.read_bytes())
    place = data.find(b"\x00\x01\x03\x00")
    data[place + 4 : place + 8] = b"\xff\xff\x00\x00"  # a tag with more values than the file holds
    odd.write_bytes(data)
    main(["attribute", str(model), str(odd)])
    assert all("odd.tif" in line for line in capfd.readouterr().err.splitlines())
    assert not [warning for warning in recwarn if "PIL" in warning.filename]


def test_a_server_that_dies_leaves_the_rest_with_its_error(monkeypatch, image, capsys):
    import bmrl.export.triton.remote

    class Dying:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        class model:  # noqa: N801
            generators = ()

    def answers(client, sources, *, threshold):
        yield Attributor(small)([sources[0]])[0]
        raise ServerUnavailableError("server: expected an answer, got none")

    from bmrl.models import build_model, presets

    small = build_model(presets.tiny(num_generators=2, image_size=64))
    monkeypatch.setattr(bmrl.export.triton.remote, "connect", lambda server: Dying())
    monkeypatch.setattr(bmrl.export.triton.remote, "attribute_remotely", answers)
    assert main(["attribute", "--server", "h:1", "a.png", "a.png", "b.png", "empty", "--json"]) == 1
    out, err = capsys.readouterr()
    first, *rest = json.loads(out)
    assert "error" not in first
    assert rest == [
        {"source": name, "error": "server: expected an answer, got none"} for name in ("a.png", "b.png", "empty")
    ]
    assert err == "bmrl: error: server: expected an answer, got none\n"
