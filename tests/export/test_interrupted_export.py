"""An export that is interrupted leaves the earlier file, and nothing else that stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch

from bmrl._files import scratch
from bmrl.export import export_model, load_artifact
from bmrl.models import build_model, save_model

EXPORT = "import sys; from bmrl.export import export_model; export_model(sys.argv[1], sys.argv[2])"


@pytest.mark.parametrize(("stop", "left"), [(signal.SIGKILL, 1), (signal.SIGINT, 0)])
def test_what_a_killed_export_has_left_goes_with_the_next_one(model, images, eager, tmp_path, stop, left):
    other = build_model(model.config)
    path = export_model(model, tmp_path / "model.pt").path
    saved = save_model(other, tmp_path / "saved")
    process = subprocess.Popen([sys.executable, "-c", EXPORT, str(saved), str(path)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (found := [*tmp_path.glob(".model.pt.????????/model.pt")]):  # written, and being verified
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with scratch(path) as mine:  # of another export at the same time, which leaves both alone
        assert found[0].exists()
        process.send_signal(stop)
        process.communicate(timeout=100)
        assert process.returncode != 0
    assert not mine.exists()
    assert len([*tmp_path.glob(".model.pt.????????")]) == left
    torch.testing.assert_close(load_artifact(path).run(images)[0], eager[0], rtol=0, atol=1e-4)
    export_model(model, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["artifact.json", "model.pt", "saved"]
