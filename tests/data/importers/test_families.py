from __future__ import annotations

import os

import pytest

from bmrl.data.importers.families import known_family, read_families
from bmrl.errors import DataError, MissingFileError


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ("StyleGAN2 stylegan3 VQGAN", ("EFS", "GAN")),
        ("DDPM LatDiff CollDiff SD-2.1 sd2.1 sd21 SD_2.1 DiT SiT", ("EFS", "diffusion")),
        ("LatTrans", ("AM", "GAN")),
        ("Diffae DiffAE", ("AM", "diffusion")),
        ("FSLSD FaceSwapper SimSwap simswap InSwapper inswap UniFace uniface e4s", ("FS", "GAN")),
        ("DiffFace REFace", ("FS", "diffusion")),
        ("real real_ffhq Real-2 CelebA-HQ FFHQ celeba", ("none", "none")),
        ("0_Real_FF++ 0_Real_CelebDF Real reals celeba_real 00-real real_faces FF++_real", ("none", "none")),
    ],
)
def test_known_names(names, family):
    for name in names.split():
        generator = known_family(name)
        assert generator is not None
        assert (generator.name, generator.manipulation, generator.architecture) == (name, *family)


@pytest.mark.parametrize(
    "name",
    [
        *("stargan", "unreal", "sd3", "dit2", "StyleGAN"),
        *(
            "realistic_vision",
            "RealVisXL",
            "Realistic-Vision-v5",
            "surreal",
            "realvisxl",
            "RealNVP",
            "realness",
            "real2sim",
        ),
        *("real_esrgan", "Real-ESRGAN", "real_vis_xl", "real_and_fake", "not_real", "my_real_images", "real_time_swap"),
        *("12", "_", "", "fake_real"),
    ],
)
def test_other_names_are_not_guessed(name):
    assert known_family(name) is None


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


NAMES = "1 to 100 printable characters without outer spaces"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: {manipulation: EFS, architecture: GAN, color: red}",
            ", a: expected the keys manipulation, architecture, role, group, got 'color'",
        ),
        ("a: {architecture: GAN}", ", a, manipulation: expected none or EFS or FS or AM, got None"),
        ("a: {manipulation: ESF, architecture: GAN}", ", a, manipulation: expected none or EFS or FS or AM, got 'ESF'"),
        ("a: {manipulation: EFS}", ", a, architecture: expected none or GAN or diffusion, got None"),
        (
            "a: {manipulation: [EFS], architecture: GAN}",
            ", a, manipulation: expected none or EFS or FS or AM, got ['EFS']",
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
        ("a: {manipulation: none, group: 3}", ", a, group: expected a regular expression, got 3"),
        ("a: EFS", ", a: expected a mapping with the key manipulation, got 'EFS'"),
        ("- a", ": expected a mapping of generator names, got list"),
        ("", ": expected a mapping of generator names, got NoneType"),
        ("no: {manipulation: none}", ": expected generator names, got False; put a name that means more in quotes"),
        ("1.5: {manipulation: none}", ": expected generator names, got 1.5; put a name that means more in quotes"),
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
