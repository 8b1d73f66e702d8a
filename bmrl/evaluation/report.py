"""The report: one HTML file that needs no other, for a reader who knows faces and courts rather than networks."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from bmrl.errors import DTypeError, MissingExtraError
from bmrl.evaluation import plots
from bmrl.evaluation.metrics import max_probability
from bmrl.evaluation.predictions import Predictions
from bmrl.evaluation.projection import MIN_IMAGES, project
from bmrl.evaluation.summary import headline
from bmrl.generators import MANIPULATION_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["render_report"]

MAX_MAPPED = 1500  # images on the t-SNE map
MAX_LISTED = 100  # skipped images in the report; metrics.json has them all

EXPLANATIONS = {
    "accuracy": (
        "Seen accuracy", "up",
        "Share of images from known generators that are named right when nothing may be rejected.",
    ),
    "balanced_accuracy": (
        "Balanced accuracy", "up", "The same, every generator counting equally whatever its number of images.",
    ),
    "auroc": (
        "AUROC", "up",
        "How often a random seen image gets a higher maximum probability than a random unseen one. 50 % is guessing.",
    ),
    "fpr95": (
        "FPR at 95 % TPR", "down",
        "Share of unseen images that slip through when the threshold is set to accept 95 % of the seen ones.",
    ),
    "aupr_seen": (
        "AUPR, seen", "up",
        "Mean precision when the most confident answers are taken for seen images. "
        "Depends on the mix: guessing scores the share of seen images.",
    ),
    "aupr_unseen": (
        "AUPR, unseen", "up",
        "The same when the least confident answers are taken for unseen images. "
        "Guessing scores the share of unseen images.",
    ),
    "oscr": (
        "OSCR", "up",
        "How often a random seen image is named right and is more confident than a random unseen one. "
        "Never above the seen accuracy.",
    ),
}  # fmt: skip
REJECTION_EXPLAINED = (
    "Maximum probability below it. Means nothing without the line above: a model that is never sure rejects everything."
)


def render_report(metrics: Mapping[str, Any], predictions: Predictions) -> str:
    """Return the report as one self-contained HTML page: styles inline, pictures as base64, no script.

    Every name is escaped: generators and paths are a user's text.

    Args:
        metrics: as :func:`~bmrl.evaluation.run.evaluate` returns them.
        predictions: what they were computed from, for the pictures.

    Raises:
        MissingExtraError: Jinja2, matplotlib or scikit-learn is not installed.
    """
    headline(metrics)
    if not isinstance(predictions, Predictions):
        raise DTypeError(f"predictions: expected Predictions, got {type(predictions).__name__}")
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("Jinja2", "train") from error
    environment = Environment(
        loader=PackageLoader("bmrl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["family"] = _family
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        comparison=_comparison(metrics),
        pictures=_pictures(metrics, predictions),
        max_listed=MAX_LISTED,
        min_images=MIN_IMAGES,
    )


def _comparison(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns (who) and rows (what, why, values) of the table of figures."""
    columns = {"This model": headline(metrics)}
    if metrics["shortcut"] is not None:
        columns["Color and spectrum alone"] = headline(metrics["shortcut"])
    columns |= {name: headline(figures) for name, figures in metrics["baselines"].items()}
    texts = dict(EXPLANATIONS)
    for entry in metrics["thresholds"]:
        at = f"{entry['threshold']:g}"
        texts[f"acceptance@{at}"] = (f"Seen images accepted at {at}", "up", f"Maximum probability {at} or more.")
        texts[f"rejection@{at}"] = (f"Unseen images rejected at {at}", "up", REJECTION_EXPLAINED)
    rows = [
        {"title": title, "better": better, "why": why, "values": [figures.get(key) for figures in columns.values()]}
        for key, (title, better, why) in texts.items()
    ]
    return {"columns": list(columns), "rows": rows}


def _pictures(metrics: Mapping[str, Any], predictions: Predictions) -> dict[str, Any]:
    scores = max_probability(predictions.probabilities)
    seen, unseen = scores[predictions.seen], scores[~predictions.seen]
    thresholds = [entry["threshold"] for entry in metrics["thresholds"]]
    pictures: dict[str, Any] = {
        "histogram": _data_uri(plots.score_histogram(seen, unseen, thresholds)),
        "curves": _data_uri(plots.threshold_curves(seen, unseen, thresholds)),
        "map": None,
    }
    if len(scores) >= MIN_IMAGES:
        names = [generator.name for generator in predictions.generators]
        others = sorted({row.generator for row in predictions.rows} - set(names))
        step = -(-len(scores) // MAX_MAPPED)  # rounded up: evenly spaced images, at most MAX_MAPPED
        kinds = [(names + others).index(row.generator) for row in predictions.rows[::step]]
        styles = plots.markers(len(names), len(others))
        pictures["map"] = _data_uri(plots.embedding_map(project(predictions.embeddings[::step]), kinds, styles))
        pictures["num_mapped"] = len(kinds)
        pictures["legend"] = [
            {"name": name, "glyph": style.glyph, "color": style.color, "seen": index < len(names)}
            for index, (name, style) in enumerate(zip(names + others, styles, strict=True))
        ]
    return pictures


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode()


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _family(entry: Mapping[str, Any]) -> str:
    name = MANIPULATION_NAMES[entry["manipulation"]]
    return name if entry["manipulation"] == "none" else f"{name}, {entry['architecture']}"
