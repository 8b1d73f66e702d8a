"""A command that is stopped prints what it has, says so, and shows it in its exit code."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bmrl.cli.signals import SIGNALS, Stopped, stopping_signals, uninterrupted


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_becomes_an_exception_and_the_handlers_come_back(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Stopped) as stopped, stopping_signals():
        signal.raise_signal(number)
    assert stopped.value.signum == number
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_what_is_being_written_is_finished_first():
    written = []

    def work():
        with stopping_signals():
            with uninterrupted():
                signal.raise_signal(signal.SIGTERM)
                written.append("whole")
            written.append("never")

    with pytest.raises(Stopped):
        work()
    assert written == ["whole"]


def test_a_burst_is_one_signal():
    finished = []

    def work():
        with stopping_signals():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)  # timeout sends it to the process and to its group
                signal.raise_signal(signal.SIGHUP)
                finished.append(True)

    with pytest.raises(Stopped):
        work()
    assert finished == [True]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_is_left_alone():
    done = []

    def work():
        with stopping_signals(), uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_second_signal_ends_at_once():
    script = """
import signal, time
from bmrl.cli import signals
signals.BURST = 0
with signals.stopping_signals():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        print("still here")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize(
    ("number", "form"), [(signal.SIGTERM, "json"), (signal.SIGHUP, "csv"), (signal.SIGINT, "jsonl")]
)
def test_attribute_has_printed_what_was_answered(model, image, command, environment, tmp_path, number, form):
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(5000):
        (folder / f"{index}.png").symlink_to(image)
    arguments = command("attribute", model, folder, "--format", form, "--batch-size", 1, "--device", "cpu")
    answers = tmp_path / "answers"
    with (
        answers.open("w") as file,
        subprocess.Popen(arguments, env=environment, stdout=file, stderr=subprocess.PIPE, text=True) as process,
    ):
        while process.poll() is None and answers.stat().st_size < 2000:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    out = answers.read_text()
    assert process.returncode == 128 + number
    assert err == f"bmrl: stopped by {number.name}; the images after the last answer are not attributed\n"
    if form == "json":
        names = [entry["source"] for entry in json.loads(out)]
    elif form == "jsonl":
        names = [json.loads(line)["source"] for line in out.splitlines()]
    else:
        rows = list(csv.reader(out.splitlines()))
        assert len({len(row) for row in rows}) == 1
        names = [row[0] for row in rows[1:]]
    assert 0 < len(names) < 5000
    assert names == [str(folder / f"{index}.png") for index in range(len(names))]


def test_a_stopped_training_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    import bmrl.training
    from bmrl.cli.main import main

    def train(data, out, **_):
        os.makedirs(out, exist_ok=True)
        with open(os.path.join(out, "training.json"), "w") as file:
            file.write("{}")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(bmrl.training, "train", train, raising=False)
    out = tmp_path / "my model"
    for more in ([], ["--model", "old"]):
        assert main(["train", "--data", "d", "--out", str(out), *more]) == 143
        again = " ".join(["--resume", *more])
        expected = f"bmrl: stopped by SIGTERM; go on with: bmrl train --data d --out '{out}' {again}\n"
        assert capsys.readouterr().err == expected


def test_a_stopped_evaluation_leaves_nothing(model, capsys, monkeypatch, tmp_path):
    import bmrl.evaluation.run as run
    from bmrl.cli.main import main
    from bmrl.data import simulate

    simulate(tmp_path / "d", images_per_generator=10, image_size=64)
    monkeypatch.setattr(run, "predict_and_describe", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert main(["evaluate", str(model), "--data", str(tmp_path / "d"), "--out", str(tmp_path / "o")]) == 143
    assert capsys.readouterr().err == f"bmrl: stopped by SIGTERM; nothing was written to {tmp_path / 'o'}\n"
    assert not (tmp_path / "o").exists()
