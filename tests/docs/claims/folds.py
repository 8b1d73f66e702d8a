"""Claims of the studies by folds: what the preset ``recommended`` and its score were chosen by."""

from __future__ import annotations

import statistics

from tests.docs.claims.claim import Claim
from tests.docs.results import read

PAGE = "docs/results.md"
VERSIONS = ("as it is", "jpeg75", "half", "crop")
SHOWN = {
    "recommended": "`recommended`",
    "without statistics, small classes less often": "no statistics, `balance` 0.5, `crop` 0.25",
    "DFACC, stronger changes, 10 epochs": "with the DFACC loss, stronger changes, 10 epochs, `balance` 0.5",
}


def folds():
    runs = read("recommended_folds")["runs"]
    for run in runs:
        cells = [
            f"{run['versions'][version]['accuracy']:.3f} / {run['versions'][version]['balanced_accuracy']:.3f}"
            for version in VERSIONS
        ]
        yield Claim(PAGE, f"| {SHOWN[run['variant']]} | {' | '.join(cells)} |")
    (chosen,) = (run for run in runs if run["variant"] == "recommended")
    recalls = sorted(chosen["recall"].items(), key=lambda entry: entry[1])
    for name, value in recalls:
        yield Claim(PAGE, f"| {name} | {value:.2f} |")
    yield Claim(PAGE, f"{chosen['images']} pictures of fold {chosen['fold']}")


def decided():
    """What becomes of pictures for each share of errors, the mean over models and halves of a fold."""
    entries = [entry for run in read("recommended_scores")["runs"] for entry in run["decided"]]
    for max_error in (0.02, 0.05, 0.1):
        mine = [entry for entry in entries if entry["max_error"] == max_error]
        cells = [
            f"{statistics.mean(statistics.mean(entry[name]) for entry in mine):.3f}"
            for name in ("right", "wrong", "unseen_named")
        ]
        yield f"| {max_error} | {' | '.join(cells)} |"


def scores():
    for row in decided():
        yield Claim(PAGE, row)
    runs = read("recommended_scores")["runs"]
    counts = [entry["validated"] for run in runs for entry in run["decided"]]
    yield Claim(PAGE, f"({min(counts)} to {max(counts)} pictures)")
    ways = ("as they are", "all versions in turn")

    def pairs(run, way, score):
        return {name: entry for name, entry in run["auroc"][way][score].items() if name != "weights"}

    for score in runs[0]["auroc"][ways[0]]:
        entries = [[entry for run in runs for entry in pairs(run, way, score).values()] for way in ways]
        cells = [
            f"{statistics.mean(entry[version] for entry in found):.3f}"
            for found in entries
            for version in ("as it is", "together")
        ]
        yield Claim(PAGE, f"| `{score}` | {' | '.join(cells)} |")
    for run in runs:
        left_out = ", ".join(run["left_out"]) or "nothing"
        for name, entry in pairs(run, ways[1], "neighbors").items():
            yield Claim(PAGE, f"| {left_out} | {name} | {entry['as it is']:.2f} | {entry['together']:.2f} |")
