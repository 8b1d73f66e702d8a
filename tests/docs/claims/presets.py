"""Claims of the study of the test split: what the preset ``recommended`` achieves with three seeds."""

from __future__ import annotations

import itertools
import statistics

from tests.docs.claims.claim import Claim
from tests.docs.results import read

PAGE = "docs/results.md"
SHARES = {
    "accuracy": "accuracy, nothing rejected",
    "balanced_accuracy": "balanced accuracy, nothing rejected",
    "right": "named, rightly",
    "wrong": "named, wrongly",
    "uncertain": "uncertain",
    "rejected": "called unseen",
    "unseen_named": "unseen ones that are named",
    "auroc": "AUROC",
    "oscr": "OSCR",
}


def spread(values):
    values = list(values)
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def rows(runs):
    """Yield the rows of the tables of the page."""
    for name, shown in SHARES.items():
        cells = [spread(run["outcomes"][place][name] for run in runs) for place in range(len(runs[0]["outcomes"]))]
        yield f"| {shown} | {' | '.join(cells)} |"
    for name in sorted(runs[0]["recall"], key=lambda name: statistics.mean(run["recall"][name] for run in runs)):
        yield f"| {name} | {spread(run['recall'][name] for run in runs)} |"
    for name in runs[0]["auroc"]:
        yield f"| {name} | {spread(run['auroc'][name] for run in runs)} |"
    for place, entry in enumerate(runs[0]["best_yardsticks"]):
        known = f"{entry['value']:.3f} (`{entry['yardstick']}`)"
        yield f"| {entry['metric']} | {spread(run['best_yardsticks'][place]['model'] for run in runs)} | {known} |"


def asked_rows(runs):
    for place, entry in enumerate(runs[0]["asked"]):
        cells = [spread(run["asked"][place][name] for run in runs) for name in ("right", "wrong", "unseen_named")]
        yield f"| {entry['max_error']} | {' | '.join(cells)} |"


def same_source(runs):
    for place, pair in enumerate(runs[0]["sources"]["pairs"]):
        pairs = [run["sources"]["pairs"][place] for run in runs]
        yield f"| {', '.join(pair['classes'])} | {pair['num_images']} | {spread(one['accuracy'] for one in pairs)} |"


def families(runs):
    for kind in ("manipulation", "architecture"):
        entries = [run["families"][kind] for run in runs]
        known = f"{entries[0]['chance']:.3f} | {entries[0]['majority']:.3f}"
        yield f"| {kind} | {spread(entry['by_classes'] for entry in entries)} | {known} |"


def others_rows(runs):
    """Yield what is known of pictures of another collection."""
    others = [run["others"] for run in runs]
    outcome = [other["outcomes"][0] for other in others]
    yield f"| photographs: accuracy, nothing rejected | {spread(entry['accuracy'] for entry in outcome)} |"
    yield f"| photographs: named, wrongly | {spread(entry['wrong'] for entry in outcome)} |"
    yield f"| photographs: called unseen | {spread(entry['rejected'] for entry in outcome)} |"
    yield f"| unseen ones that are named | {spread(entry['unseen_named'] for entry in outcome)} |"
    for name in others[0]["auroc"]:
        yield f"| AUROC of the photographs against {name} | {spread(other['auroc'][name] for other in others)} |"


def enrolled(runs):
    """Yield the rows of the table of enrolling."""
    entries = [entry for run in runs for entry in run["enrolled"]]
    keys = sorted({(entry["generator"], entry["pictures"]) for entry in entries})
    for (name, count), found in ((key, [e for e in entries if (e["generator"], e["pictures"]) == key]) for key in keys):
        recall = [entry["recall"] for entry in found]
        taken, accuracy = (statistics.mean(entry[column] for entry in found) for column in ("taken", "accuracy"))
        shown = f"{statistics.mean(recall):.2f} ({min(recall):.2f}-{max(recall):.2f})"
        yield f"| {name} | {count} | {shown} | {taken:.3f} | {accuracy:.3f} |"


def presets():
    runs = read("recommended_faces")["runs"]
    for row in itertools.chain(
        *(table(runs) for table in (rows, asked_rows, same_source, families, others_rows, enrolled))
    ):
        yield Claim(PAGE, row)
    first = {name: statistics.mean(run["outcomes"][0][name] for run in runs) for name in SHARES}
    other = statistics.mean(run["others"]["outcomes"][0]["accuracy"] for run in runs)
    for text in (
        f"the right name for {100 * first['right']:.0f} % of the test pictures",
        f"a wrong one for {100 * first['wrong']:.0f} %",
        f"{100 * first['unseen_named']:.0f} % of the pictures of generators that it does not know",
        f"the right class for {100 * other:.0f} % when it had to name one",
    ):
        yield Claim("README.md", text)
