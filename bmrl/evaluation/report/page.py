"""The report: one self-contained HTML file, for a reader who knows faces and courts rather than networks."""

from __future__ import annotations

from base64 import b64encode
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bmrl._version import __version__
from bmrl.errors import DTypeError, MissingExtraError
from bmrl.evaluation.detection import DETECTION_MEASURES
from bmrl.evaluation.measures import threshold_free_measures
from bmrl.evaluation.report.plots import PALETTE, embedding_map, markers, risk_curves, score_histogram, threshold_curves
from bmrl.evaluation.report.projection import MIN_IMAGES, project
from bmrl.evaluation.report.tables import comparison, seen_generators, unseen_generators
from bmrl.evaluation.result import Evaluation
from bmrl.evaluation.yardsticks import YARDSTICKS, in_words
from bmrl.generators import MANIPULATION_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["render_report"]

MAX_MAPPED = 1500  # images on the t-SNE map
OUTCOME_NAMES = (
    *("accuracy", "balanced_accuracy", "right", "wrong", "uncertain", "rejected"),
    *("unseen_named", "unseen_uncertain", "unseen_rejected", "auroc", "oscr"),
)
MAX_LISTED = 100  # skipped images in the report; metrics.json has them all


def render_report(evaluation: Evaluation) -> str:
    """Return the report as one self-contained HTML page: styles inline, pictures as base64, no script.

    Every name is escaped: generators and paths are a user's text.

    Args:
        evaluation: what :func:`~bmrl.evaluation.evaluate` returned.

    Raises:
        DTypeError: ``evaluation`` is something else.
        MissingExtraError: Jinja2, matplotlib or scikit-learn is not installed.
    """
    if not isinstance(evaluation, Evaluation):
        raise DTypeError(f"evaluation: expected what evaluate returned, got {type(evaluation).__name__}")
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("Jinja2", "train") from error
    environment = Environment(
        loader=PackageLoader("bmrl.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = "{:.1%}".format
    environment.filters["family"] = _family
    comparisons = evaluation.best_yardsticks
    titles = {measure.name: measure.title for measure in threshold_free_measures()}
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        own=evaluation.outcomes[0],
        worst=min(evaluation.outcomes, key=itemgetter("accuracy")),
        unbeaten=[titles[entry["metric"]] for entry in comparisons if not entry["better"]],
        version=__version__,
        comparison=comparison(evaluation),
        seen_generators=seen_generators(evaluation),
        unseen_generators=unseen_generators(evaluation),
        detection_measures=DETECTION_MEASURES,
        outcome_names=OUTCOME_NAMES,
        yardsticks=[YARDSTICKS[name] for name in evaluation.yardsticks],
        yardstick_titles={name: YARDSTICKS[name].title for name in evaluation.yardsticks_left_out},
        manipulations=MANIPULATION_NAMES,
        compared=in_words(comparisons),
        pictures=_pictures(evaluation),
        max_listed=MAX_LISTED,
        min_images=MIN_IMAGES,
    )


def _pictures(evaluation: Evaluation) -> dict[str, Any]:
    predictions = evaluation.predictions
    scores = predictions.decisions.probabilities
    seen, unseen = scores[predictions.seen], scores[~predictions.seen]
    thresholds = [entry["threshold"] for entry in evaluation.thresholds]
    pictures: dict[str, Any] = {
        "histogram": _data_uri(score_histogram(seen, unseen, thresholds)),
        "curves": _data_uri(threshold_curves(seen, unseen, thresholds)),
        "risk": _data_uri(risk_curves([entry["risk_coverage"] for entry in evaluation.outcomes])),
        "risk_colors": [PALETTE[place % len(PALETTE)] for place in range(len(evaluation.outcomes))],
        "map": None,
    }
    if len(scores) >= MIN_IMAGES:
        names = [generator.name for generator in predictions.generators]
        others = predictions.unseen_generators
        step = -(-len(scores) // MAX_MAPPED)  # rounded up: evenly spaced images, at most MAX_MAPPED
        kinds = [(names + others).index(row.generator) for row in predictions.rows[::step]]
        styles = markers(len(names), len(others))
        pictures["map"] = _data_uri(embedding_map(project(predictions.embeddings[::step]), kinds, styles))
        pictures["num_mapped"] = len(kinds)
        pictures["legend"] = [
            {"name": name, "glyph": style.glyph, "color": style.color, "seen": index < len(names)}
            for index, (name, style) in enumerate(zip(names + others, styles, strict=True))
        ]
    return pictures


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode()


def _family(entry: Mapping[str, Any]) -> str:
    name, architecture = MANIPULATION_NAMES[entry["manipulation"]], entry["architecture"]
    if architecture == "none":
        return name
    return f"{name}, {'unknown architecture' if architecture == 'unknown' else architecture}"
