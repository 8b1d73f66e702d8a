from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmrl.errors import ConfigError, RangeError
from bmrl.generators import Generator
from bmrl.models import BMRLConfig, presets

NAMES = st.text(min_size=1, max_size=100).filter(lambda name: name.isprintable() and name == name.strip())

PAPER = {  # section 4.1 of the paper
    "image_size": 224,
    "patch_size": 112,
    "embed_dim": 512,
    "channels": (32, 64, 128, 256, 512),
    "convs_per_stage": (3, 3, 3, 4, 4),
    "visual_blocks": 6,
    "parsing_blocks": 6,
    "language_blocks": 6,
    "num_heads": 8,
    "mlp_dim": 1024,
    "dropout": 0.0,
    "token_patch": "all",
    "fusion": "sum",
    "appearance": True,
    "edge": True,
    "noise": True,
    "noise_truncation": 3.0,
    "parsing": True,
    "language": True,
    "readout": "last_level",  # ours: the released code reads the first
    "vocab_size": 49408,
    "context_length": 77,
    "num_levels": 4,
    "normalize_embedding": True,
    "head_norm": True,
    "thresholds": (0.7, 0.9),
}

TINY = PAPER | {
    "image_size": 128,
    "patch_size": 128,
    "noise_truncation": 0.04,
    "embed_dim": 128,
    "channels": (16, 32, 96, 192, 256),
    "convs_per_stage": (1, 1, 2, 2, 2),
    "visual_blocks": 2,
    "parsing_blocks": 1,
    "language_blocks": 1,
    "num_heads": 4,
    "mlp_dim": 256,
    "token_patch": 1,
}


@pytest.mark.parametrize(("preset", "expected"), [(presets.paper, PAPER), (presets.tiny, TINY)])
def test_presets_are_what_was_measured(preset, expected):
    fields = preset(num_generators=3).to_dict()
    generators = fields.pop("generators")
    assert fields == expected
    assert [generator["name"] for generator in generators] == ["generator_0", "generator_1", "generator_2"]


def test_tinys_noise_view_shows_the_whole_image_of_any_size():
    assert presets.tiny(num_generators=2, image_size=64).patch_size == 64
    assert presets.tiny(num_generators=2, image_size=64, patch_size=32).patch_size == 32
    assert presets.paper(num_generators=2, image_size=64).patch_size == 32


@given(
    st.sampled_from([presets.paper, presets.tiny]),
    st.lists(NAMES, min_size=1, max_size=5, unique=True),
    st.sets(st.sampled_from(["edge", "noise", "parsing", "language"])),
)
def test_survives_json(preset, names, off):
    generators = [Generator(name=name, manipulation="FS", architecture="diffusion") for name in names]
    config = preset(generators=generators, **dict.fromkeys(off, False))
    assert BMRLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        presets.tiny(num_generators=2).embed_dim = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 100}, r"image_size: expected a multiple of 32, got 100"),
        ({"patch_size": 24}, r"patch_size: expected a multiple of 16 up to image_size 128, got 24"),
        ({"num_heads": 3}, r"num_heads: expected a divisor of embed_dim 128, got 3"),
        ({"channels": (8,)}, r"convs_per_stage: expected one entry a stage of channels \(8,\), got"),
        ({"dropout": 1.0}, r"dropout: expected a finite number >= 0 and < 1, got 1.0"),
        ({"edge": "False"}, r"edge: expected true or false, got 'False'"),
        ({"channels": (16.0, 8)}, r"channels\[0\]: expected an integer >= 1, got 16.0"),
        ({"channels": 8}, r"channels: expected a list, got 8"),
        ({"image_size": "128"}, r"image_size: expected an integer >= 1, got '128'"),
        ({"noise_truncation": 0.0}, r"noise_truncation: expected a finite number > 0, got 0.0"),
        ({"thresholds": ()}, r"thresholds: expected at least one, got none"),
        ({"image_size": 2**40}, r"image_size: expected an integer >= 1 and <= 2147483647, got 1099511627776"),
        ({"embed_dim": 10**5000}, r"embed_dim: expected .*, got an integer of thousands of digits"),
        ({"embed_dim": True}, r"embed_dim: expected an integer >= 1, got True"),
        ({"dropout": float("nan")}, r"dropout: expected a finite number >= 0 and < 1, got nan"),
        ({"noise_truncation": float("inf")}, r"noise_truncation: expected a finite number > 0, got inf"),
        ({"channels": ()}, r"convs_per_stage: expected one entry a stage of channels \(\), got"),
        ({"thresholds": "a"}, r"thresholds: expected a list, got 'a'"),
        ({"generators": None, "num_generators": True}, r"num_generators: expected an integer >= 1, got True"),
        ({"num_generators": 10**6}, r"num_generators: expected an integer >= 1 and <= 100000, got 1000000"),
        ({"num_generators": None, "generators": 3}, r"generators: expected a list, got 3"),
        ({"num_generators": None, "generators": ["a"]}, r"generators\[0\]: expected a Generator, got 'a'"),
        ({"visual_blocks": 0}, r"visual_blocks: expected an integer >= 1, got 0"),
        ({"thresholds": (0.7, 1.5)}, r"thresholds\[1\]: expected a finite number > 0 and < 1, got 1.5"),
        ({"appearance": False, "edge": False, "noise": False}, r"expected at least one visual encoder on, got none"),
        ({"appearance": False, "fusion": "cross_attention"}, r"appearance: expected True with fusion"),
    ],
)
def test_rejects_what_does_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        presets.tiny(**({"num_generators": 2} | changes))


@pytest.mark.parametrize("value", [True, 1.0, "1", None, ["all"]])
def test_a_choice_is_taken_by_type_too(value):
    with pytest.raises(RangeError, match=r"token_patch: expected 'all' or 1, got "):
        presets.tiny(num_generators=2, token_patch=value)


def test_rejects_bad_choices_and_generators():
    with pytest.raises(RangeError, match=r"fusion: expected 'sum' or 'cross_attention', got 'mean'"):
        presets.tiny(num_generators=2, fusion="mean")
    with pytest.raises(RangeError, match=r"manipulation: expected .*, got 'swap'"):
        Generator(name="a", manipulation="swap", architecture="GAN")
    with pytest.raises(ConfigError, match=r"architecture: expected none exactly for photographs"):
        Generator(name="a", manipulation="none", architecture="GAN")
    twice = [Generator(name="a", manipulation="FS", architecture="GAN")] * 2
    with pytest.raises(ConfigError, match=r"generators: expected distinct names, got a more than once"):
        presets.tiny(generators=twice)
    with pytest.raises(ConfigError, match=r"num_generators: expected an integer >= 1, got 0"):
        presets.tiny(num_generators=0)
    with pytest.raises(ConfigError, match=r"got both or neither"):
        presets.tiny()


def test_rejects_unknown_keys():
    data = presets.tiny(num_generators=2).to_dict()
    with pytest.raises(ConfigError, match=r"depth: expected a field of BMRLConfig \(appearance, .*\), got no such"):
        BMRLConfig.from_dict(data | {"depth": 3})
    with pytest.raises(ConfigError, match=r"head_nrm: .*, got no such; did you mean head_norm of BMRLConfig\?"):
        BMRLConfig.from_dict(data | {"head_nrm": 3})
    with pytest.raises(ConfigError, match=r"3: expected a field of BMRLConfig"):
        BMRLConfig.from_dict(data | {3: 3})
    with pytest.raises(ConfigError, match=r"generators: expected a list, got None"):
        BMRLConfig.from_dict({"image_size": 64})
    with pytest.raises(ConfigError, match=r"generators\[0\]: expected name, manipulation and architecture, got 'name'"):
        BMRLConfig.from_dict(data | {"generators": [{"name": "a"}]})
    with pytest.raises(ConfigError, match=r"model: expected fields by name, got 3"):
        BMRLConfig.from_dict(3)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "a\n",
        "a\nb",
        "a\x1b[31m",
        "\x9b31m",
        "a\u2028b",
        "a\x85b",
        "\ud800",
        "a\0",
        "a" * 101,
        "a\u202eb",
        "\ufeffa",
    ],
)
def test_names_that_a_table_a_terminal_or_a_file_could_not_show(name):
    with pytest.raises(ConfigError, match=r"name: expected 1 to 100 printable characters") as error:
        Generator(name=name, manipulation="EFS", architecture="GAN")
    assert str(error.value).isprintable()


def test_names_of_any_script():
    for name in ("Diffae: näïve, v2", "顔", "a b", "😀", "a" * 100):
        assert Generator(name=name, manipulation="EFS", architecture="GAN").name == name
    with pytest.raises(ConfigError, match="name: expected a string, got 3"):
        Generator(name=3, manipulation="EFS", architecture="GAN")


def test_equal_configurations_are_equal_in_json():
    first = presets.tiny(num_generators=2, dropout=0, thresholds=[0.5], channels=[16, 32, 96, 192, 256])
    second = presets.tiny(num_generators=2, dropout=0.0, thresholds=(0.5,))
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())
