from __future__ import annotations

import os

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bmrl.data.importers.families import families_entry, read_families
from bmrl.errors import DataError, MissingFileError
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, Generator, is_name


def test_reads_families(tmp_path):
    path = tmp_path / "families.yaml"
    path.write_text(
        "mygan: {manipulation: EFS, architecture: GAN}\n"
        "swap: {manipulation: FS, architecture: diffusion, role: unseen}\n"
        "photos: {manipulation: none, group: '^(\\d+)_'}\n"
        "2024: {manipulation: none, architecture: none}\n"
    )
    rules = read_families(path)
    seen = {name: (r.generator.manipulation, r.generator.architecture, r.role) for name, r in rules.items()}
    assert seen == {
        "mygan": ("EFS", "GAN", "seen"),
        "swap": ("FS", "diffusion", "unseen"),
        "photos": ("none", "none", "seen"),
        "2024": ("none", "none", "seen"),
    }
    assert all(name == rule.generator.name for name, rule in rules.items())
    assert rules["photos"].group.pattern == r"^(\d+)_"
    assert rules["mygan"].group is None


def test_folders_of_one_generator_complete_each_other(tmp_path):
    path = tmp_path / "families.yaml"
    path.write_text(
        "first: {generator: X, group: '^(.)'}\n"
        "X: {manipulation: FR, architecture: flow}\n"
        "third: {generator: X, role: unseen}\n"
        "more_photos: {generator: photos}\n"
        "photos: {manipulation: none}\n"
        "2: {generator: 1, manipulation: AM, architecture: unknown}\n"
    )
    rules = read_families(path)
    x = Generator(name="X", manipulation="FR", architecture="flow")
    photos = Generator(name="photos", manipulation="none", architecture="none")
    assert {folder: rule.generator for folder, rule in rules.items()} == {
        **dict.fromkeys(("first", "X", "third"), x),
        **dict.fromkeys(("more_photos", "photos"), photos),
        "2": Generator(name="1", manipulation="AM", architecture="unknown"),
    }
    assert {folder for folder, rule in rules.items() if rule.role == "unseen"} == {"first", "X", "third"}
    assert {folder for folder, rule in rules.items() if rule.group is not None} == {"first"}


def test_what_is_left_out_of_a_published_generator_is_known(tmp_path):
    path = tmp_path / "families.yaml"
    path.write_text("DDPM: {role: unseen}\nswaps: {generator: SimSwap}\nffhq: {group: '^(.)'}\n")
    rules = read_families(path)
    assert [(r.generator.name, r.generator.manipulation, r.generator.architecture, r.role) for r in rules.values()] == [
        ("DDPM", "EFS", "diffusion", "unseen"),
        ("SimSwap", "FS", "GAN", "seen"),
        ("ffhq", "none", "none", "seen"),
    ]


@given(st.text(min_size=1, max_size=12).filter(is_name), st.sampled_from(MANIPULATIONS), st.sampled_from(ARCHITECTURES))
def test_every_name_and_family_is_read_as_written(tmp_path_factory, name, manipulation, architecture):
    assume((manipulation == "none") == (architecture == "none"))
    path = tmp_path_factory.mktemp("families") / "families.yaml"
    entry = families_entry(name)
    assert entry.endswith("{manipulation: EFS, architecture: GAN}")
    given_family = f"{{manipulation: {manipulation}, architecture: {architecture}}}"
    path.write_text(entry.replace("{manipulation: EFS, architecture: GAN}", given_family), encoding="utf-8")
    generator = Generator(name=name, manipulation=manipulation, architecture=architecture)
    assert {folder: rule.generator for folder, rule in read_families(path).items()} == {name: generator}


NAMES = "1 to 100 printable characters without outer spaces"
MANIPULATION = "none, EFS, FS, AM or FR"
ARCHITECTURE = "none, GAN, diffusion, flow, autoregressive, autoencoder, graphics or unknown"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: {manipulation: EFS, architecture: GAN, color: red}",
            ", a: expected the keys generator, manipulation, architecture, role, group, got 'color'",
        ),
        ("a: {architecture: GAN}", f", a, manipulation: expected {MANIPULATION}, got None"),
        (
            "a: {manipulation: ESF, architecture: GAN}",
            f", a, manipulation: expected {MANIPULATION}, got 'ESF'; did you mean EFS?",
        ),
        ("a: {role: unseen}", f", a, manipulation: expected {MANIPULATION}, got None"),
        ("a: {manipulation: EFS}", f", a, architecture: expected {ARCHITECTURE}, got None"),
        (
            "a: {manipulation: EFS, architecture: Diffusion}",
            f", a, architecture: expected {ARCHITECTURE}, got 'Diffusion'; did you mean diffusion?",
        ),
        ("a: {manipulation: [EFS], architecture: GAN}", f", a, manipulation: expected {MANIPULATION}, got list"),
        ("a: {generator: ' b', manipulation: none}", f", a, generator: expected {NAMES}, got ' b'"),
        ("a: {generator: no, manipulation: none}", f", a, generator: expected {NAMES}, got False"),
        ("a: {generator: [b], manipulation: none}", f", a, generator: expected {NAMES}, got list"),
        ("a: {generator: b}", f", a, manipulation: expected {MANIPULATION}, got None"),
        (
            "a: {generator: x, manipulation: EFS, architecture: GAN}\n"
            "b: {generator: x, manipulation: FS, architecture: GAN}",
            ", b, manipulation: expected 'EFS' for x, as a says, got 'FS'",
        ),
        (
            "x: {manipulation: EFS, architecture: GAN}\nb: {generator: x, architecture: flow}",
            ", b, architecture: expected 'GAN' for x, as x says, got 'flow'",
        ),
        (
            "a: {generator: x, manipulation: none, role: unseen}\nb: {generator: x}\nc: {generator: x, role: seen}",
            ", c, role: expected 'unseen' for x, as a says, got 'seen'",
        ),
        ("a: {manipulation: EFS, architecture: GAN, role: known}", ", a, role: expected seen or unseen, got 'known'"),
        (
            "a: {manipulation: EFS, architecture: none}",
            ", a, architecture: expected none exactly for photographs (manipulation none), "
            "got none with manipulation EFS",
        ),
        (
            "a: {manipulation: none, architecture: GAN}",
            ", a, architecture: expected none exactly for photographs (manipulation none), "
            "got GAN with manipulation none",
        ),
        (
            "a: {manipulation: [EFS], architecture: GAN}\nb: {generator: a, manipulation: EFS}",
            ", b, manipulation: expected list for a, as a says, got 'EFS'",
        ),
        (
            'a: {manipulation: "x\\ny", architecture: GAN}\nb: {generator: a, manipulation: EFS}',
            ", b, manipulation: expected 'x\\ny' for a, as a says, got 'EFS'",
        ),
        ("a: {manipulation: none, group: 3}", ", a, group: expected a regular expression, got 3"),
        ("a: EFS", ", a: expected a mapping with the key manipulation, got 'EFS'"),
        ("- a", ": expected a mapping of generator names, got list"),
        ("", ": expected a mapping of generator names, got NoneType"),
        (
            "no: {manipulation: none}",
            ": expected generator names, got False; put a name of another type in quotes",
        ),
        (
            "1.5: {manipulation: none}",
            ": expected generator names, got 1.5; put a name of another type in quotes",
        ),
        ("'a ': {manipulation: none}", f": expected generator names of {NAMES}, got 'a '"),
        ('"a\\u200b": {manipulation: none}', f": expected generator names of {NAMES}, got 'a\\u200b'"),
        (
            "a: {manipulation: none}\na: {manipulation: FS, architecture: GAN}",
            ": expected each name once, got 'a' twice",
        ),
        ("a: {manipulation: none, role: seen, role: unseen}", ": expected each name once, got 'role' twice"),
    ],
)
def test_rejects(tmp_path, text, message):
    path = tmp_path / "families.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_families(path)
    assert str(caught.value) == f"{path}{message}"


def test_rejects_what_is_no_yaml_or_pattern(tmp_path):
    path = tmp_path / "families.yaml"
    for text, message in (
        ("a: {", ": expected a YAML file, got: while parsing"),
        ("a: {manipulation: none, group: '('}", ", a, group: expected a regular expression, got '(': missing )"),
        ("!!python/object/apply:os.getcwd []", ": expected a YAML file, got: could not determine a constructor"),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            read_families(path)
        assert str(caught.value).startswith(f"{path}{message}")
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingFileError, match=r"none\.yaml: expected a YAML file, got nothing at this path$"):
        read_families(tmp_path / "none.yaml")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "families.yaml")
    with pytest.raises(DataError, match=r"families\.yaml: expected a YAML file, got: .*a named pipe"):
        read_families(tmp_path / "families.yaml")
