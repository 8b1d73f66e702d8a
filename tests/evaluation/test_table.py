from __future__ import annotations

from bmrl.evaluation import format_metrics

CONTENT = {
    "seen": {"accuracy": 0.9, "balanced_accuracy": 0.8},
    "unseen": {"auroc": 0.75, "fpr95": 0.5, "aupr_seen": 0.7, "aupr_unseen": 0.6, "oscr": 0.65},
    "thresholds": [
        {"threshold": 0.7, "seen_acceptance": 0.85, "seen_accepted_and_right": 0.8, "unseen_rejection": 0.4}
    ],
}


def test_one_line_per_metric_and_one_column_per_model():
    without_unseen = CONTENT | {
        "unseen": None,
        "thresholds": [{"threshold": 0.7, "seen_acceptance": 1.0, "unseen_rejection": None}],
    }
    assert format_metrics({"BMRL": CONTENT, "another": without_unseen}).splitlines() == [
        "                                              BMRL   another",
        "Seen accuracy                                 90.0%  90.0%",
        "Balanced accuracy                             80.0%  80.0%",
        "AUROC seen/unseen                             75.0%  -",
        "FPR at 95% TPR                                50.0%  -",
        "AUPR, seen                                    70.0%  -",
        "AUPR, unseen                                  60.0%  -",
        "OSCR                                          65.0%  -",
        "Seen accepted at 0.7                          85.0%  100.0%",
        "Seen accepted and right at 0.7                80.0%  -",
        "Unseen rejected at 0.7                        40.0%  -",
        "Unseen rejected, mean over generators at 0.7  -      -",
    ]


def test_models_may_have_other_thresholds():
    higher = CONTENT | {"thresholds": [{"threshold": 0.95, "seen_acceptance": 0.25}]}
    lines = format_metrics({"higher": higher, "BMRL": CONTENT}).splitlines()
    (at_70,) = [line.split()[-2:] for line in lines if line.startswith("Seen accepted at 0.7 ")]
    (at_95,) = [line.split()[-2:] for line in lines if line.startswith("Seen accepted at 0.95 ")]
    assert (at_70, at_95) == (["-", "85.0%"], ["25.0%", "-"])
    assert [line.split("  ")[0] for line in lines].index("Seen accepted at 0.7") < len(lines) - 4
