"""The answer for one image: which generator made it, or that none of the seen ones did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from bmrl._checks import check_shape
from bmrl._text import printable
from bmrl.errors import DTypeError, ShapeError
from bmrl.inference.checks import as_probabilities, check_generators, check_rate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bmrl.generators import Generator
    from bmrl.inference.checks import Values

__all__ = ["Attribution", "attributions_from_probabilities", "format_table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution:
    """What a model says about one image.

    Attributes:
        source: the image's path, or a name for an image that came without one.
        generator: the most probable generator if the image is seen, else None.
        probability: the probability of the most probable generator, in 0 .. 1.
        seen: whether ``probability`` is at or above ``threshold``.
        threshold: in 0 .. 1.
        manipulation: one of :data:`bmrl.generators.MANIPULATIONS`. Of a seen image its generator's; of an unseen
            one the family whose classes have the largest sum of probabilities, a hint and no finding.
        architecture: one of :data:`bmrl.generators.ARCHITECTURES`, decided likewise and on its own.
        probabilities: of every class by name, in the model's order.
    """

    source: str
    generator: str | None
    probability: float
    seen: bool
    threshold: float
    manipulation: str
    architecture: str
    probabilities: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return asdict(self)


def attributions_from_probabilities(
    probabilities: Values, generators: Sequence[Generator], threshold: float, sources: Sequence[str]
) -> list[Attribution]:
    """Turn probabilities, computed here or by a server, into one :class:`Attribution` an image.

    Args:
        probabilities: ``(n, x)``, floating point, rows summing to 1; n >= 1.
        generators: the x classes, in the order of the probabilities.
        threshold: in 0 .. 1; an image is seen when its maximum probability is at or above it (in float64).
        sources: n names.

    Raises:
        ShapeError: the sizes differ or are zero. RangeError: rows are no probabilities (NaN among them), or
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
    return [
        _attribute(row, generators, threshold, source) for row, source in zip(checked.tolist(), sources, strict=True)
    ]


def format_table(attributions: Iterable[Attribution]) -> str:
    r"""Return a plain text table, a line an image under one header line, columns separated by two spaces.

    Characters that a terminal would act on (line breaks, escapes) are written as ``\x1b`` and the like.

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
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _attribute(row: list[float], generators: Sequence[Generator], threshold: float, source: str) -> Attribution:
    best = max(range(len(row)), key=row.__getitem__)  # the first of equals, as torch.argmax
    seen = row[best] >= threshold
    manipulations: dict[str, float] = {}
    architectures: dict[str, float] = {}
    for generator, probability in zip(generators, row, strict=True):
        manipulations[generator.manipulation] = manipulations.get(generator.manipulation, 0.0) + probability
        architectures[generator.architecture] = architectures.get(generator.architecture, 0.0) + probability
    return Attribution(
        source=source,
        generator=generators[best].name if seen else None,
        probability=row[best],
        seen=seen,
        threshold=float(threshold),
        manipulation=generators[best].manipulation if seen else max(manipulations, key=manipulations.__getitem__),
        architecture=generators[best].architecture if seen else max(architectures, key=architectures.__getitem__),
        probabilities={generator.name: value for generator, value in zip(generators, row, strict=True)},
    )


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
