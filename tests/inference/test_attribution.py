from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmrl.errors import RangeError, ShapeError
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, Generator
from bmrl.inference.attribution import Attribution, attributions_from_probabilities, format_table

CLASSES = (
    Generator(name="stylegan2", manipulation="EFS", architecture="GAN"),
    Generator(name="ddpm", manipulation="EFS", architecture="diffusion"),
    Generator(name="simswap", manipulation="FS", architecture="GAN"),
    Generator(name="ffhq", manipulation="none", architecture="none"),
)


def attribute(row, threshold=0.7):
    (answer,) = attributions_from_probabilities(torch.tensor([row], dtype=torch.float64), CLASSES, threshold, ["a.png"])
    return answer


def test_seen_image():
    answer = attribute([0.1, 0.7, 0.1, 0.1])
    assert answer == Attribution(
        source="a.png", generator="ddpm", verdict="seen", reason="probability 0.700 is not below the threshold 0.7",
        probability=0.7, score=0.7, seen=True, threshold=0.7, manipulation="EFS", architecture="diffusion",
        probabilities={"stylegan2": 0.1, "ddpm": 0.7, "simswap": 0.1, "ffhq": 0.1},
    )  # fmt: skip


def test_unseen_image_gets_the_families_with_the_largest_sums():
    answer = attribute([0.25, 0.3, 0.35, 0.1])
    assert (answer.generator, answer.seen, answer.probability) == (None, False, 0.35)
    assert answer.manipulation == "EFS"  # 0.55, although the best class is a face swap
    assert answer.architecture == "GAN"  # 0.6
    photographs = attribute([0.2, 0.2, 0.15, 0.45])
    assert photographs.manipulation == "none"  # 0.45 against 0.4
    assert photographs.architecture == "none"


def test_seen_image_keeps_its_generators_family_even_if_another_sums_higher():
    answer = attribute([0.3, 0.3, 0.4, 0.0], threshold=0.4)
    assert (answer.generator, answer.manipulation, answer.architecture) == ("simswap", "FS", "GAN")


@given(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any), st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]))
def test_families_equal_brute_force(weights, threshold):
    row = [weight / sum(weights) for weight in weights]
    answer = attribute(row, threshold)
    best = row.index(max(row))
    assert answer.seen == (row[best] >= threshold)
    assert answer.generator == (CLASSES[best].name if row[best] >= threshold else None)
    assert list(answer.probabilities.values()) == row
    if not answer.seen:
        for family in ("manipulation", "architecture"):
            sums = {
                getattr(one, family): sum(
                    p for p, other in zip(row, CLASSES, strict=True) if getattr(other, family) == getattr(one, family)
                )
                for one in CLASSES
            }
            assert sums[getattr(answer, family)] == pytest.approx(max(sums.values()), abs=1e-12)


@given(
    st.lists(st.tuples(st.sampled_from(MANIPULATIONS[1:]), st.sampled_from(ARCHITECTURES[1:])), min_size=1, max_size=9),
    st.data(),
)
def test_families_of_any_kind_are_summed(families, data):
    weights = data.draw(st.lists(st.integers(0, 9), min_size=len(families), max_size=len(families)).filter(any))
    classes = [
        Generator(name=str(index), manipulation=manipulation, architecture=architecture)
        for index, (manipulation, architecture) in enumerate(families)
    ]
    row = [weight / sum(weights) for weight in weights]
    (answer,) = attributions_from_probabilities([row], classes, 1.0, ["a.png"])
    if not answer.seen:
        for place, given_family in enumerate((answer.manipulation, answer.architecture)):
            sums = Counter()
            for family, weight in zip(families, weights, strict=True):
                sums[family[place]] += weight
            assert sums[given_family] == max(sums.values())


def test_json_round_trip():
    answer = attribute([0.25, 0.3, 0.35, 0.1])
    data = json.loads(json.dumps(answer.to_dict()))
    assert Attribution(**data) == answer
    assert data["generator"] is None


def test_rejects():
    with pytest.raises(ShapeError, match=r"probabilities: expected generators = 4, got 2 \(shape \(1, 2\)\)"):
        attributions_from_probabilities([[0.5, 0.5]], CLASSES, 0.7, ["a"])
    with pytest.raises(ShapeError, match=r"sources: expected 1 names, got 2"):
        attributions_from_probabilities([[0.25] * 4], CLASSES, 0.7, ["a", "b"])
    with pytest.raises(RangeError, match=r"threshold: expected 0 .. 1, got nan"):
        attribute([0.25] * 4, threshold=float("nan"))
    with pytest.raises(RangeError, match=r"probabilities: expected finite numbers, got nan"):
        attribute([float("nan")] * 4)


def test_table():
    answers = [attribute([0.1, 0.7, 0.1, 0.1]), attribute([0.25, 0.3, 0.35, 0.1])]
    assert format_table(answers).split("\n") == [
        "image  generator  probability  verdict  manipulation  architecture",
        "a.png  ddpm       0.700        seen     EFS           diffusion",
        "a.png  -          0.350        unseen   EFS           GAN",
    ]
    assert format_table([]).split() == ["image", "generator", "probability", "verdict", "manipulation", "architecture"]


def test_table_is_safe_in_a_terminal_and_aligned_for_wide_characters():
    names = ["顔.png", "line\nbreak", "\x1b[2Jclear", "bad\udce9byte", "plain"]
    lines = format_table(attributions_from_probabilities([[0.0, 1.0, 0.0, 0.0]] * 5, CLASSES, 0.7, names)).split("\n")
    assert len(lines) == 6
    assert lines[2].startswith("line\\nbreak ")
    assert lines[3].startswith("\\x1b[2Jclear ")
    assert lines[4].startswith("bad\\udce9byte ")
    assert all(line.isprintable() for line in lines)
    assert lines[1].index("ddpm") + 1 == lines[5].index("ddpm")  # one character, two columns
