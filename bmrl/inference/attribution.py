"""The answer for one image: which generator made it, or that none of the seen ones did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmrl._checks import check_shape
from bmrl._results import Result
from bmrl._text import columns, printable
from bmrl.errors import DTypeError, ShapeError
from bmrl.inference.checks import as_probabilities, check_generators, check_rate
from bmrl.inference.decision import decide_checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bmrl.generators import Generator
    from bmrl.inference.checks import Values

__all__ = ["Attribution", "attributions_from_probabilities", "format_table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution(Result):
    """What a model says about one image; ``to_dict()`` returns the attributes as plain data.

    Attributes:
        source: the image's path, or a name for an image that came without one.
        generator: the most probable generator if the image is seen, else None.
        probability: the probability of the most probable generator, in 0 .. 1.
        seen: whether ``probability`` is at or above ``threshold``.
        threshold: in 0 .. 1.
        manipulation: ``none`` (a photograph) or one of :mod:`bmrl.generators`, such as ``EFS``. For a seen image that
            of its generator; for an unseen one the family whose classes have the largest sum of probabilities, which
            is a hint, not a finding.
        architecture: ``none`` (a photograph) or one of :mod:`bmrl.generators`, such as ``GAN``; decided in the same
            way, independently of ``manipulation``.
        probabilities: that of every class by name, in the model's order.
    """

    source: str
    generator: str | None
    probability: float
    seen: bool
    threshold: float
    manipulation: str
    architecture: str
    probabilities: dict[str, float]


def attributions_from_probabilities(
    probabilities: Values, generators: Sequence[Generator], threshold: float, sources: Sequence[str]
) -> list[Attribution]:
    """Turn probabilities, computed here or by a server, into one :class:`Attribution` per image.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1; n >= 1.
        generators: the x classes, in the order of the probabilities.
        threshold: in 0 .. 1; an image is seen when its maximum probability is at or above it (in float64).
        sources: n names.

    Raises:
        ShapeError: the sizes differ or are zero. RangeError: rows are not probabilities (NaN among them), or
            ``threshold`` is out of range. DTypeError: ``probabilities`` is not floating point.

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
    check_rate("threshold", threshold)
    checked = as_probabilities("probabilities", probabilities)
    check_shape("probabilities", checked, "images generators", generators=len(generators))
    if isinstance(sources, str) or not isinstance(sources, Sequence):
        raise DTypeError(f"sources: expected a list of names, got {type(sources).__name__}")
    if len(sources) != len(checked):
        raise ShapeError(f"sources: expected {len(checked)} names, got {len(sources)}")
    decided = decide_checked(checked)
    rows = zip(checked.tolist(), decided.labels.tolist(), decided.seen(threshold).tolist(), sources, strict=True)
    return [_attribution(row, label, seen, generators, threshold, source) for row, label, seen, source in rows]


def format_table(attributions: Iterable[Attribution]) -> str:
    r"""Return a plain text table: one line per image below a header, columns separated by two spaces.

    Characters that a terminal would act on (line breaks, escapes) are written as ``\x1b`` and the like.

    Args:
        attributions: of the images, in the order of the lines.

    Example:
        >>> print(format_table([
        ...     Attribution(source="a.png", generator=None, probability=0.41, seen=False, threshold=0.7,
        ...                 manipulation="FS", architecture="GAN",
        ...                 probabilities={"simswap": 0.41, "ddpm": 0.35, "real": 0.24}),
        ... ]))
        image  generator  probability  seen    manipulation  architecture
        a.png  -          0.410        unseen  FS            GAN
    """
    lines = [("image", "generator", "probability", "seen", "manipulation", "architecture")]
    lines += [
        (
            printable(entry.source),
            printable(entry.generator or "-"),
            f"{entry.probability:.3f}",
            "seen" if entry.seen else "unseen",
            entry.manipulation,
            entry.architecture,
        )
        for entry in attributions
    ]
    return columns(lines)


def _attribution(
    row: list[float], label: int, seen: bool, generators: Sequence[Generator], threshold: float, source: str
) -> Attribution:
    named = generators[label]
    return Attribution(
        source=source,
        generator=named.name if seen else None,
        probability=row[label],
        seen=seen,
        threshold=float(threshold),
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
