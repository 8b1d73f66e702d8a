"""Options of a benchmark session, and what it leaves behind: a JSON file and pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import Session
from benchmarks.plots import draw

_SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=("cpu", "cuda"), default="cpu", help="device that is measured")
    parser.addoption("--out", default=None, help="folder for the JSON file and the pictures")
    parser.addoption("--batches", type=int, nargs="+", default=None, help="batch sizes")


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Session:
    """The session's record."""
    return request.config.stash.setdefault(_SESSION, Session.start(request.config.getoption("--on")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    record = session.config.stash.get(_SESSION, None)
    out = session.config.getoption("--out")
    if out and record and record.measurements:
        record.write(Path(out, f"operators_{record.device}.json"))
        draw(Path(out, f"operators_{record.device}.json"))
