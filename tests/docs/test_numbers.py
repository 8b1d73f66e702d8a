"""Measured numbers: each is in a committed result file, and every number that looks like one is known."""

from __future__ import annotations

import re

import pytest

from tests.docs.claims import CLAIMS
from tests.docs.not_measured import NOT_MEASURED
from tests.docs.results import RESULTS, ROOT

PAGES = ["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "deploy/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))

WORDS = "two|three|four|five|six|seven|eight|nine|ten|hundred|thousand|million|some|many"
UNIT = r"%|ms|s|min|MiB|GiB|MB|GB|kB|seconds?|minutes?|hours?|images/s|images per second|times|milliseconds?"
LOOKS_MEASURED = re.compile(
    rf"\d[\d,]*\.\d+(?:e-?\d+)?(?:[ -](?:{UNIT})\b)?|\d[\d,]*[ -]?(?:{UNIT})(?!\w)"
    rf"|\b(?:{WORDS})[ -](?:times|fold|milliseconds?|seconds?|minutes?)\b"
    r"|\b(?:twice|half|an? (?:third|quarter|fifth|sixth|seventh|tenth)) (?:as|of the)\b"
)


def words(text):
    """Return a page in one line, without code, addresses of links, versions and formulas."""
    text = re.sub(r"^( *)```.*?^\1```", " ", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`(?:, line \d+)?", _kept, text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|<http[^>]*>", "]", text)
    return " ".join(re.sub(r"\d+\.\d+\.\d+|arXiv:\d+\.\d+", "VERSION", text).split())


def _kept(code):
    """Keep code whose words a claim may quote, with no digits in it."""
    return re.sub(r"\d", "#", code.group()) if code.group().startswith("`") else " FORMULA "


def spans(text, pieces):
    for piece in pieces:
        start = text.find(words(piece))
        while start >= 0:
            yield start, start + len(words(piece))
            start = text.find(words(piece), start + 1)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page}: {claim.text[:60]}")
def test_a_number_is_that_of_its_result_file(claim):
    assert claim.text in " ".join((ROOT / claim.page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("page", PAGES)
def test_every_number_that_looks_measured_is_known(page):
    text = words((ROOT / page).read_text(encoding="utf-8"))
    known = [claim.text for claim in CLAIMS if claim.page == page] + NOT_MEASURED.get(page, [])
    covered = list(spans(text, known))
    unknown = [
        text[max(0, found.start() - 60) : found.end() + 40]
        for found in LOOKS_MEASURED.finditer(text)
        if not any(start <= found.start() and found.end() <= end for start, end in covered)
    ]
    assert unknown == []


@pytest.mark.parametrize("page", NOT_MEASURED)
def test_what_is_not_measured_still_stands_there(page):
    text = words((ROOT / page).read_text(encoding="utf-8"))
    assert [piece for piece in NOT_MEASURED[page] if words(piece) not in text] == []


def test_every_result_file_is_listed_with_its_command():
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"`([\w*]+\.(?:json|md|png))`", table.split("## How to read them")[0])
    patterns = [re.escape(name).replace(r"\*", ".*") for name in listed]
    files = [path.name for path in RESULTS.iterdir()]
    assert [name for name in files if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in files)] == []


def test_the_source_claims_no_speed():
    """A docstring can't be compared with a result file: it says what is faster, and the benchmarks by how much."""
    speed = re.compile(r"\d(?:\.\d+)? times (?:as )?(?:fast|slow|often)|\d ?images/s\b")
    found = {str(path.relative_to(ROOT)): speed.findall(path.read_text()) for path in (ROOT / "bmrl").rglob("*.py")}
    assert {path: claims for path, claims in found.items() if claims} == {}
