from __future__ import annotations

from bmrl.evaluation.table import format_figures

FIGURES = {
    "seen": {"accuracy": 0.9, "balanced_accuracy": 0.8},
    "unseen": {"auroc": 0.75, "fpr95": 0.5, "aupr_seen": 0.7, "aupr_unseen": 0.6, "oscr": 0.65},
    "thresholds": [{"threshold": 0.7, "seen_acceptance": 0.85, "unseen_rejection": 0.4}],
}


def test_one_line_a_figure_and_one_column_a_model():
    without_unseen = FIGURES | {
        "unseen": None,
        "thresholds": [{"threshold": 0.7, "seen_acceptance": 1.0, "unseen_rejection": None}],
    }
    assert format_figures({"BMRL": FIGURES, "another": without_unseen}).splitlines() == [
        "                        BMRL   another",
        "seen accuracy           0.900  0.900",
        "balanced accuracy       0.800  0.800",
        "AUROC seen/unseen       0.750  -",
        "FPR at 95 % TPR         0.500  -",
        "OSCR                    0.650  -",
        "seen accepted at 0.7    0.850  1.000",
        "unseen rejected at 0.7  0.400  -",
    ]
