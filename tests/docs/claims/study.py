"""Claims of the study of the DFACC loss."""

from __future__ import annotations

import statistics

from tests.docs.claims.claim import Claim
from tests.docs.results import mean_and_range, read, study

COLUMNS = {"accuracy": 3, "auroc": 3, "oscr": 3, "within": 2, "between": 2, "ratio": 2}
COMPARED = ("CE", "CE + VCC", "CE + DFACC on the embedding", "CE + DFACC on the probabilities")
SWEPT = {
    "m = 0.5, λ = 0.5": "margin 0.5",
    "m = 0.7, λ = 0.5": "CE + DFACC on the embedding",
    "m = 0.9, λ = 0.5": "margin 0.9",
    "m = 0.7, λ = 0": "lambda 0",
    "m = 0.7, λ = 0.3": "lambda 0.3",
    "m = 0.7, λ = 0.7": "lambda 0.7",
}


def study_row(runs):
    cells = [mean_and_range([run[column] for run in runs], digits) for column, digits in COLUMNS.items()]
    related = [run["related"] for run in runs]
    cells.append("-" if None in related else ", ".join(f"{number:.0f}" for number in related))
    return " | ".join(cells)


def studies():
    page = "docs/losses.md"
    for data in ("simulated", "faces"):
        for variant in COMPARED:
            yield Claim(page, f"| {variant} | {study_row(study(data, variant))} |")
    for shown, variant in SWEPT.items():
        runs = study("simulated", variant)
        yield Claim(page, f"| {shown} | {len(runs)} | {study_row(runs)} |")
    auroc = {variant: statistics.mean(run["auroc"] for run in study("faces", variant)) for variant in COMPARED}
    lost = [auroc["CE"] - auroc[variant] for variant in ("CE + VCC", "CE + DFACC on the embedding")]
    assert {f"{value:.1f}" for value in lost} == {"0.1"}
    yield Claim(page, "on the faces both losses on the embedding lower AUROC by about 0.1")
    runs = read("dfacc_study_simulated")["runs"] + read("dfacc_study_faces")["runs"]
    assert not any(run["related_in_family"] for run in runs)
    yield Claim(page, "No pair of centers that ended within the margin was of one family")
