"""Claims of the study by folds: what the preset ``recommended`` was chosen by."""

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
    for generator in sorted({entry["generator"] for entry in chosen["enrolled"]}):
        for count in sorted({entry["pictures"] for entry in chosen["enrolled"]}):
            draws = [
                entry for entry in chosen["enrolled"] if (entry["generator"], entry["pictures"]) == (generator, count)
            ]
            values = [entry["recall"] for entry in draws]
            taken, accuracy = (statistics.mean(entry[name] for entry in draws) for name in ("taken", "accuracy"))
            cells = (
                f"{statistics.mean(values):.2f} ({min(values):.2f}-{max(values):.2f}) | {taken:.3f} | {accuracy:.3f}"
            )
            yield Claim(PAGE, f"| {generator} | {count} | {cells} |")
