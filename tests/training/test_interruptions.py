"""Runs that are killed, signalled and resumed, as processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import pytest

from bmrl.training import train

pytestmark = pytest.mark.slow

KILLED_AT = """
import os, signal
count = 0
def counted(call):
    def wrapper(*arguments, **options):
        global count
        count += 1
        if count == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapper
for name in ("fsync", "replace", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
"""


def killing(call: int) -> str:
    """Return code after which the process kills itself at its nth call that changes what is on the disk."""
    return KILLED_AT.replace("{call}:", f"{call}:")


def test_a_kill_at_any_write_loses_nothing(data, plain_run, runs, run_code, tmp_path):
    for call in range(3, 1000, 7):  # all of them were tried once
        out = tmp_path / str(call)
        killed = run_code(killing(call) + runs.call(data, out))
        if killed.wait() == 0:
            break
        again = run_code(runs.call(data, out, resume=(out / "training.json").is_file()))
        assert again.wait() == 0, again.output
        assert runs.same(out, plain_run)
        assert list(out.rglob(".*")) == []
    assert call > 40


def test_a_kill_at_any_moment_loses_nothing(data, plain_run, runs, run_code, tmp_path):
    out = tmp_path / "run"
    process = run_code(runs.call(data, out))
    process.wait_for((out / "checkpoints" / "last.ckpt").is_file)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    shutil.move(out, tmp_path / "moved")
    (tmp_path / "linked").symlink_to(tmp_path / "moved")
    again = run_code(runs.call(data, "linked", resume=True))
    assert again.wait() == 0, again.output
    assert runs.same(tmp_path / "moved", plain_run)


def test_sigterm_is_the_callers(data, plain_run, runs, run_code, tmp_path):
    out = tmp_path / "run"
    process = run_code(runs.call(data, out))
    process.wait_for((out / "checkpoints" / "last.ckpt").is_file)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert not (out / "config.json").exists()
    assert run_code(runs.call(data, out, resume=True)).wait() == 0
    assert runs.same(out, plain_run)


INTERRUPTED = """
import signal
class Stopped(KeyboardInterrupt):
    pass
raised = None
def handler(number, frame):
    global raised
    raised = Stopped(number)
    raise raised
signal.signal(signal.{name}, handler)
before = {{number: signal.getsignal(number) for number in signal.valid_signals()}}
try:
    {call}
except KeyboardInterrupt as error:
    assert error is raised
    assert before == {{number: signal.getsignal(number) for number in signal.valid_signals()}}
    raise SystemExit(77)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_comes_through_as_it_was_raised(data, plain_run, runs, run_code, tmp_path, name):
    out = tmp_path / "run"
    process = run_code(INTERRUPTED.format(name=name, call=runs.call(data, out).replace("\n", "; ").rstrip("; ")))
    process.wait_for((out / "checkpoints" / "last.ckpt").is_file)
    os.kill(process.pid, getattr(signal, name))
    assert process.wait() == 77, process.output
    assert not (out / ".bmrl-in-use").exists()
    assert run_code(runs.call(data, out, resume=True)).wait() == 0
    assert runs.same(out, plain_run)


def test_ctrl_c_is_a_keyboard_interrupt(data, runs, run_code, tmp_path):
    out = tmp_path / "run"
    process = run_code(runs.call(data, out, epochs=500))
    process.wait_for((out / "checkpoints" / "last.ckpt").is_file)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 1
    assert "KeyboardInterrupt" in process.output


def test_compare_lets_interrupts_through(data, run_code, tmp_path):
    code = (
        "from bmrl.evaluation.comparison import compare\n"
        "try:\n"
        f"    compare({str(data)!r}, {str(tmp_path / 'out')!r}, methods=['bmrl'], max_epochs=500, device='cpu')\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(77)\n"
    )
    process = run_code(code)
    process.wait_for((tmp_path / "out" / ".bmrl-in-use").is_file)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 77, process.output


def test_a_thread_can_train(data, plain_run, runs, tmp_path):
    options = {"model_changes": runs.plain, "recipe_changes": runs.brisk, "device": "cpu", "progress": False}
    thread = threading.Thread(target=train, args=(data, tmp_path / "run"), kwargs=options)
    thread.start()
    thread.join()
    assert runs.same(tmp_path / "run", plain_run)
