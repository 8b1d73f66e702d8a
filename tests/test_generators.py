"""Families of generators: one rule, and what an error says was meant."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmrl.data.importers.families import read_families
from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.errors import BMRLError, ConfigError, RangeError
from bmrl.generators import (
    ARCHITECTURE_NAMES,
    ARCHITECTURES,
    MANIPULATION_NAMES,
    MANIPULATIONS,
    Generator,
    check_family,
)

FAMILIES = [("none", "none")] + [
    (manipulation, architecture)
    for manipulation in ("EFS", "FS", "AM", "FR")
    for architecture in ("GAN", "diffusion", "flow", "autoregressive", "autoencoder", "graphics", "unknown")
]


def accepts(call) -> bool:
    try:
        call()
    except BMRLError:
        return False
    return True


def test_each_family_has_a_name_in_words():
    assert tuple(MANIPULATION_NAMES) == MANIPULATIONS
    assert tuple(ARCHITECTURE_NAMES) == ARCHITECTURES
    for names in (MANIPULATION_NAMES, ARCHITECTURE_NAMES):
        assert len({name.casefold() for name in names.values()}) == len(names)


def test_generators_manifests_and_families_files_take_the_same_families(tmp_path):
    path = tmp_path / "families.yaml"
    for manipulation, architecture in itertools.product((*MANIPULATIONS, "ESF"), (*ARCHITECTURES, "gan")):
        expected = (manipulation, architecture) in FAMILIES
        assert accepts(lambda m=manipulation, a=architecture: check_family(m, a)) == expected
        assert accepts(lambda m=manipulation, a=architecture: Generator(name="x", manipulation=m, architecture=a)) == (
            expected
        )
        row = Row("x.png", "x", manipulation, architecture, "seen", "train", "x")
        assert accepts(lambda row=row: Manifest(Path("data"), (row,))) == expected
        path.write_text(f"x: {{manipulation: {manipulation}, architecture: {architecture}}}")
        assert accepts(lambda: read_families(path)) == expected


@pytest.mark.parametrize(
    ("manipulation", "architecture", "field", "got", "meant"),
    [
        ("efs", "GAN", "manipulation", "efs", "EFS"),
        ("ESF", "GAN", "manipulation", "ESF", "EFS"),
        ("reenactment", "GAN", "manipulation", "reenactment", "FR"),
        ("Face-Swap", "GAN", "manipulation", "Face-Swap", "FS"),
        ("photo", "none", "manipulation", "photo", "none"),
        ("EFS", "gan", "architecture", "gan", "GAN"),
        ("EFS", "Latent Diffusion", "architecture", "Latent Diffusion", "diffusion"),
        ("EFS", "auto-regressive", "architecture", "auto-regressive", "autoregressive"),
        ("EFS", "autoencodr", "architecture", "autoencodr", "autoencoder"),
        ("FS", "flow matching", "architecture", "flow matching", "flow"),
    ],
)
def test_an_error_says_what_was_probably_meant(manipulation, architecture, field, got, meant):
    with pytest.raises(RangeError, match=rf"^{field}: expected none, .*, got '{got}'; did you mean {meant}\?$"):
        check_family(manipulation, architecture)


@pytest.mark.parametrize("value", ["xyz", "", "a", None, 3, ["EFS"], ("EFS",)])
def test_an_error_does_not_guess(value):
    with pytest.raises(RangeError, match=r"^manipulation: expected none, EFS, FS, AM or FR, got [^;]*$"):
        check_family(value, "GAN")


@given(st.sampled_from(FAMILIES[1:]), st.data())
def test_another_case_is_always_understood(family, data):
    place = data.draw(st.integers(0, 1))
    typed = "".join(data.draw(st.sampled_from([char.lower(), char.upper()])) for char in family[place])
    given_family = [*family]
    given_family[place] = typed
    if typed == family[place]:
        check_family(*given_family)
    else:
        with pytest.raises(RangeError, match=rf"got '{typed}'; did you mean {family[place]}\?$"):
            check_family(*given_family)


@pytest.mark.parametrize(("manipulation", "architecture"), [("none", "GAN"), ("FR", "none"), ("none", "unknown")])
def test_none_stands_for_photographs_alone(manipulation, architecture):
    expected = rf"architecture: expected none exactly for photographs .*, got {architecture} with .* {manipulation}$"
    with pytest.raises(ConfigError, match=expected):
        Generator(name="a", manipulation=manipulation, architecture=architecture)
