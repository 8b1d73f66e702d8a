"""Standard streams that are closed or full, and an environment that knows no other letters than ASCII."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time

import pytest

from bmrl.cli.output import LineFormatter, complain, progress_bar


@pytest.fixture
def shell(command, environment, tmp_path):
    """Run a shell command in which ``$B`` stands for bmrl."""

    def run_shell(text, **more):
        prelude = f'B() {{ {" ".join(command())} "$@"; }}\n'
        return subprocess.run(
            ["bash", "-c", prelude + text],
            env=environment | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_shell


FULL = "bmrl: error: stdout: No space left on device\n"


def test_help_on_a_full_or_closed_output(shell):
    full = shell("B --help >/dev/full")
    assert (full.returncode, full.stderr) == (1, FULL)
    closed = shell("B --version >&-")
    assert closed.returncode == 1
    assert closed.stderr == "bmrl: error: stdout: expected an open output, got a closed one\n"
    head = shell("B --help | head -1; exit ${PIPESTATUS[0]}")
    assert head.stderr == ""


@pytest.mark.parametrize("form", ["table", "json"])
def test_answers_on_a_full_output(shell, model, image, form):
    result = shell(f"B attribute '{model}' a.png --format {form} >/dev/full")
    assert (result.returncode, result.stderr) == (1, FULL)


def test_errors_on_a_full_or_closed_stderr(shell, model, image):
    for redirection in ("2>/dev/full", "<&- 2>&-"):
        result = shell(f"B attribute '{model}' a.png missing.png --format jsonl {redirection}")
        assert result.returncode == 1
        assert [json.loads(line)["source"] for line in result.stdout.splitlines()] == ["a.png", "missing.png"]


def test_a_folder_that_is_gone(shell):
    result = shell("mkdir gone; cd gone; rmdir ../gone; B simulate x")
    expected = "bmrl: error: current folder: expected an existing one, got one that was removed\n"
    assert (result.returncode, result.stderr.splitlines(keepends=True)[-1]) == (1, expected)
    assert shell("mkdir gone; cd gone; rmdir ../gone; B --version").returncode == 0


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize("ascii_only", [ASCII, {"PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"}])
def test_names_in_a_locale_without_them(shell, model, image, ascii_only):
    shutil.copy(image, os.fsencode(image.parent) + b"/\xc3\xa4\xff.png")
    result = shell(f"B attribute '{model}' $'\\xc3\\xa4\\xff.png' missing_$'\\xc3\\xa4' --format csv", **ascii_only)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stdout.splitlines()) == 3
    assert result.stdout.isascii()
    assert result.stderr.isascii()


def test_the_module_is_the_command(run):
    result = run("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("bmrl 0.")
    assert run("--help").stdout.startswith("usage: bmrl ")


def test_help_loads_no_pytorch(environment):
    script = "import sys\nfrom bmrl.cli.main import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    for arguments in (["--help"], ["attribute", "--help"], ["train", "--data"]):
        shown = subprocess.run(
            [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert not {"torch", "numpy", "PIL"} & set(shown.stdout.split())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_progress_bar_is_for_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert progress_bar("images") is None
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    draw = progress_bar("images")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for done in range(1, 5):
        now += 0.15
        draw(done, 4)
    drawn = screen.getvalue().split("\r")
    assert len(drawn) == 3  # the second image, the last, and what follows
    assert drawn[0].startswith("[###############...............] 2 of 4 images, 0 s left")
    assert drawn[1].replace("\x1b[K", "") == drawn[2] == ""
    complain("bmrl: error: x")
    assert screen.getvalue().split("\r")[-1] == "\x1b[Kbmrl: error: x\n"


def test_a_log_message_is_one_line(caplog):
    record = logging.LogRecord("bmrl", logging.INFO, "f", 1, "%s: no maps", ("a\x1b[1m\nb",), None)
    assert LineFormatter("bmrl: %(message)s").format(record) == "bmrl: a\\x1b[1m\\nb: no maps"


def test_no_file_takes_the_place_of_a_closed_stderr(shell, tmp_path):
    """What a library prints to stderr would go into it."""
    program = (
        "import os; from bmrl.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "open('taken', 'w').write(os.readlink('/proc/self/fd/2'))"
    )
    assert shell(f'{sys.executable} -c "{program}" 2>&-').returncode == 0
    assert (tmp_path / "taken").read_text() == "/dev/null"
