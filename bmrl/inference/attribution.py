"""The answer for one image: which generator made it, or that none of the seen ones did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmrl._checks import check_shape
from bmrl._results import Result
from bmrl._text import columns, printable
from bmrl.errors import DTypeError, RangeError, ShapeError
from bmrl.inference.checks import as_probabilities, check_generators
from bmrl.inference.decision import decide
from bmrl.inference.limits import MAX_PROBABILITY, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bmrl.generators import Generator
    from bmrl.inference.checks import Values
    from bmrl.inference.limits import Verdict

__all__ = ["Attribution", "attributions_from_probabilities", "format_table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution(Result):
    """What a model says about one image; ``to_dict()`` returns the attributes as plain data.

    Attributes:
        source: the image's path, or a name for an image that came without one.
        generator: the most probable generator if the image is seen, else None.
        verdict: ``seen``; ``unseen``, which means that none of the model's generators made it; or ``uncertain``: to say
            either would be wrong too often.
        reason: why, in words.
        probability: the probability of the most probable generator, in 0 .. 1.
        score: how much the image looks like those of the model's generators, the more the higher; in the paper's rule
            the same as ``probability``, and else in the unit of the model's score.
        seen: whether the verdict is ``seen``.
        threshold: the score below which an image is called unseen.
        manipulation: ``none`` (a photograph) or one of :mod:`bmrl.generators`, such as ``EFS``. For a seen image that
            of its generator; for any other the family whose classes have the largest sum of probabilities, which
            is a hint, not a finding.
        architecture: ``none`` (a photograph) or one of :mod:`bmrl.generators`, such as ``GAN``; decided in the same
            way, independently of ``manipulation``.
        probabilities: that of every class by name, in the model's order.
    """

    source: str
    generator: str | None
    verdict: Verdict
    reason: str
    probability: float
    score: float
    seen: bool
    threshold: float
    manipulation: str
    architecture: str
    probabilities: dict[str, float]


def attributions_from_probabilities(
    probabilities: Values,
    generators: Sequence[Generator],
    limits: Limits | float,
    sources: Sequence[str],
    *,
    scores: Values | None = None,
) -> list[Attribution]:
    """Turn probabilities, computed here or by a server, into one :class:`Attribution` per image.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1; n >= 1.
        generators: the x classes, in the order of the probabilities.
        limits: what an image must reach to be seen; a number in 0 .. 1 is the paper's rule: seen when the maximum
            probability is at or above it (in float64).
        sources: n names.
        scores: ``(n,)``, floating point; None is the maximum probability.

    Raises:
        ShapeError: the sizes differ or are zero. RangeError: rows are not probabilities (NaN among them), or
            ``limits`` is out of range or of a score that was not given. DTypeError: ``probabilities`` or ``scores`` is
            not floating point.

    Example:
        >>> from bmrl.generators import Generator
        >>> classes = [
        ...     Generator(name="ddpm", manipulation="EFS", architecture="diffusion"),
        ...     Generator(name="simswap", manipulation="FS", architecture="GAN"),
        ... ]
        >>> first, second = attributions_from_probabilities([[0.9, 0.1], [0.4, 0.6]], classes, 0.7, ["a", "b"])
        >>> first.generator, first.seen, second.generator, second.seen, second.manipulation
        ('ddpm', True, None, False, 'FS')
    """
    check_generators(generators)
    if not isinstance(limits, Limits):
        limits = Limits.of_threshold(limits)
    if scores is None and limits.score != MAX_PROBABILITY:
        raise RangeError(f"scores: expected those of {limits.score}, to which the limits belong, got None")
    checked = as_probabilities("probabilities", probabilities)
    check_shape("probabilities", checked, "images generators", generators=len(generators))
    if isinstance(sources, str) or not isinstance(sources, Sequence):
        raise DTypeError(f"sources: expected a list of names, got {type(sources).__name__}")
    if len(sources) != len(checked):
        raise ShapeError(f"sources: expected {len(checked)} names, got {len(sources)}")
    decided = decide(checked, scores)
    rows = zip(
        checked.tolist(),
        decided.labels.tolist(),
        decided.scores.tolist(),
        decided.verdicts(limits),
        sources,
        strict=True,
    )
    return [_attribution(*row, generators=generators, limits=limits) for row in rows]


def format_table(attributions: Iterable[Attribution]) -> str:
    r"""Return a plain text table: one line per image below a header, columns separated by two spaces.

    Characters that a terminal would act on (line breaks, escapes) are written as ``\x1b`` and the like.

    Args:
        attributions: of the images, in the order of the lines.

    Example:
        >>> print(format_table([
        ...     Attribution(source="a.png", generator=None, verdict="unseen", probability=0.41, score=0.41,
        ...                 seen=False, threshold=0.7, reason="probability 0.410 is below the threshold 0.7",
        ...                 manipulation="FS", architecture="GAN",
        ...                 probabilities={"simswap": 0.41, "ddpm": 0.35, "real": 0.24}),
        ... ]))
        image  generator  probability  verdict  manipulation  architecture
        a.png  -          0.410        unseen   FS            GAN
    """
    lines = [("image", "generator", "probability", "verdict", "manipulation", "architecture")]
    lines += [
        (
            printable(entry.source),
            printable(entry.generator or "-"),
            f"{entry.probability:.3f}",
            entry.verdict,
            entry.manipulation,
            entry.architecture,
        )
        for entry in attributions
    ]
    return columns(lines)


def _attribution(
    row: list[float],
    label: int,
    score: float,
    verdict: Verdict,
    source: str,
    *,
    generators: Sequence[Generator],
    limits: Limits,
) -> Attribution:
    named, seen = generators[label], verdict == "seen"
    return Attribution(
        source=source,
        generator=named.name if seen else None,
        verdict=verdict,
        reason=limits.reason(verdict, score, row[label]),
        probability=row[label],
        score=score,
        seen=seen,
        threshold=limits.unseen,
        manipulation=named.manipulation if seen else _likeliest([g.manipulation for g in generators], row),
        architecture=named.architecture if seen else _likeliest([g.architecture for g in generators], row),
        probabilities={generator.name: value for generator, value in zip(generators, row, strict=True)},
    )


def _likeliest(families: list[str], probabilities: list[float]) -> str:
    """Return the family with the largest sum of probabilities, the first of equals."""
    sums = dict.fromkeys(families, 0.0)
    for family, probability in zip(families, probabilities, strict=True):
        sums[family] += probability
    return max(sums, key=sums.__getitem__)
