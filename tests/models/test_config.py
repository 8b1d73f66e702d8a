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

ENCODER = {
    "kind": "conv_transformer",
    "channels": (32, 64, 128, 256, 512),
    "convs_per_stage": (3, 3, 3, 4, 4),
    "final_pool": True,
    "num_blocks": 6,
    "num_heads": 8,
    "mlp_dim": 1024,
    "dropout": 0.0,
    "token_patch": "all",
}
LANGUAGE = {
    "kind": "transformer",
    "vocab_size": 49408,
    "context_length": 77,
    "num_levels": 4,
    "num_blocks": 6,
    "num_heads": 8,
    "mlp_dim": 1024,
    "dropout": 0.0,
    "readout": "last_level",  # ours: the released code reads the first
}
PAPER = {  # section 4.1 of the paper
    "image_size": 224,
    "embed_dim": 512,
    "appearance": ENCODER,
    "edge": ENCODER,
    "noise": {"patch_size": 112, "patches": "richest", "truncation": 3.0, "encoder": ENCODER | {"final_pool": False}},
    "statistics": None,
    "views": (),
    "fusion": {"kind": "sum", "num_heads": 8},
    "head": {"kind": "linear", "norm": True, "dropout": 0.0, "normalize_embedding": True},
    "parsing": ENCODER,
    "language": LANGUAGE,
    "decision": {"thresholds": (0.7, 0.9), "score": None, "accept": 0.95, "typical": 0.8, "max_error": 0.02},
}

SMALL = {"num_heads": 4, "mlp_dim": 256}
SMALL_ENCODER = (
    ENCODER
    | SMALL
    | {
        "channels": (16, 32, 96, 192, 256),
        "convs_per_stage": (1, 1, 2, 2, 2),
        "num_blocks": 2,
        "token_patch": 1,
    }
)
TINY = PAPER | {
    "image_size": 128,
    "embed_dim": 128,
    "appearance": SMALL_ENCODER,
    "edge": SMALL_ENCODER,
    "noise": {
        "patch_size": 128,
        "patches": "richest",
        "truncation": 0.04,
        "encoder": SMALL_ENCODER | {"final_pool": False},
    },
    "fusion": {"kind": "sum", "num_heads": 4},
    "parsing": SMALL_ENCODER | {"num_blocks": 1},
    "language": LANGUAGE | SMALL | {"num_blocks": 1},
}


RECOMMENDED = PAPER | {
    "image_size": 128,
    "embed_dim": 256,
    "appearance": {
        "kind": "pretrained",
        "source": "timm",
        "name": "tf_efficientnet_lite0",
        "weights": "embedded",
        "input_size": 224,
        "stages": None,
        "pooling": "mean_std",
        "frozen": False,
        "learning_rate_scale": 1.0,
        "mean": None,
        "std": None,
        "num_blocks": 2,
        "num_heads": 8,
        "mlp_dim": 1024,
        "dropout": 0.0,
    },
    "edge": None,
    "noise": None,
    "statistics": {"kind": "residual_statistics", "hidden_dim": 256, "dropout": 0.1},
    "fusion": PAPER["fusion"] | {"kind": "concat"},
    "head": PAPER["head"] | {"dropout": 0.1},
    "parsing": None,
    "language": None,
    "decision": PAPER["decision"] | {"score": "neighbors", "max_error": 0.05},
}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [(presets.paper, PAPER), (presets.tiny, TINY), (presets.recommended, RECOMMENDED)],
)
def test_presets_are_what_was_measured(preset, expected):
    fields = preset(num_generators=3).to_dict()
    generators = fields.pop("generators")
    assert fields == expected
    assert [generator["name"] for generator in generators] == ["generator_0", "generator_1", "generator_2"]


def test_tinys_noise_view_shows_the_whole_image_of_any_size():
    assert presets.tiny(num_generators=2, image_size=64).noise.patch_size == 64
    assert presets.tiny(num_generators=2, image_size=64, noise={"patch_size": 32}).noise.patch_size == 32
    assert presets.tiny(num_generators=2, image_size=64, **{"noise.patch_size": 32}).noise.patch_size == 32
    assert presets.paper(num_generators=2, image_size=64).noise.patch_size == 32


@given(
    st.sampled_from([presets.paper, presets.tiny]),
    st.lists(NAMES, min_size=1, max_size=5, unique=True),
    st.sets(st.sampled_from(["edge", "noise", "parsing", "language"])),
)
def test_survives_json(preset, names, off):
    generators = [Generator(name=name, manipulation="FS", architecture="diffusion") for name in names]
    config = preset(generators=generators, **dict.fromkeys(off, None))
    assert BMRLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        presets.tiny(num_generators=2).embed_dim = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 100}, r"image_size: expected a multiple of 32, as appearance needs it, got 100"),
        ({"noise.patch_size": 24}, r"noise.patch_size: expected a multiple of 16, as noise.encoder needs it, got 24"),
        ({"noise.patch_size": 160}, r"noise.patch_size: expected at most image_size 128, got 160"),
        ({"edge.num_heads": 3}, r"edge.num_heads: expected a divisor of embed_dim 128, got 3"),
        ({"language.num_heads": 3}, r"language.num_heads: expected a divisor of embed_dim 128, got 3"),
        ({"fusion": {"kind": "cross_attention", "num_heads": 3}}, r"fusion.num_heads: expected a divisor of embed_dim"),
        ({"noise.encoder.channels": (8,)}, r"noise.encoder.convs_per_stage: expected one entry per stage of .*\(8,\)"),
        ({"head.dropout": 1.0}, r"head.dropout: expected a finite number >= 0 and < 1, got 1.0"),
        ({"edge": "False"}, r"edge: expected ConvTransformerConfig or .*, got 'False'"),
        ({"edge": True}, r"edge: expected ConvTransformerConfig or .*, got True"),
        ({"noise": 3}, r"noise: expected a NoiseConfig, got 3"),
        ({"edge.channels": (16.0, 8)}, r"edge.channels\[0\]: expected an integer >= 1, got 16.0"),
        ({"edge.channels": 8}, r"edge.channels: expected a list, got 8"),
        ({"image_size": "128"}, r"image_size: expected an integer >= 1, got '128'"),
        ({"noise.truncation": 0.0}, r"noise.truncation: expected a finite number > 0, got 0.0"),
        ({"decision.thresholds": ()}, r"decision.thresholds: expected at least one, got none"),
        ({"image_size": 2**40}, r"image_size: expected an integer >= 1 and <= 2147483647, got 1099511627776"),
        ({"embed_dim": 10**5000}, r"embed_dim: expected .*, got an integer of thousands of digits"),
        ({"embed_dim": True}, r"embed_dim: expected an integer >= 1, got True"),
        ({"head": {"dropout": float("nan")}}, r"head.dropout: expected a finite number >= 0 and < 1, got nan"),
        ({"noise.truncation": float("inf")}, r"noise.truncation: expected a finite number > 0, got inf"),
        ({"parsing.channels": ()}, r"parsing.convs_per_stage: expected one entry per stage of channels \(\), got"),
        ({"decision.thresholds": "a"}, r"decision.thresholds: expected a list, got 'a'"),
        ({"generators": None, "num_generators": True}, r"num_generators: expected an integer >= 1, got True"),
        ({"num_generators": 10**6}, r"num_generators: expected an integer >= 1 and <= 100000, got 1000000"),
        ({"num_generators": None, "generators": 3}, r"generators: expected a list, got 3"),
        ({"num_generators": None, "generators": ["a"]}, r"generators\[0\]: expected a Generator, got 'a'"),
        ({"*.num_blocks": 0}, r"appearance.num_blocks: expected an integer >= 1, got 0"),
        ({"decision.thresholds": (0.7, 1.5)}, r"decision.thresholds\[1\]: expected a finite .* > 0 and < 1, got 1.5"),
        (
            {"appearance": None, "edge": None, "noise": None},
            r"appearance, edge, noise, statistics: expected at least one view",
        ),
        (
            {"appearance": None, "fusion.kind": "cross_attention"},
            r"appearance: expected a view that is on, .*, got None",
        ),
        ({"edge.kind": "vit"}, r"edge.kind: expected 'conv_transformer' or .*'custom', got 'vit'"),
        ({"edge": {"kind": "os.system"}}, r"edge.kind: expected 'conv_transformer' or .*, got 'os.system'"),
        ({"edge": {"kind": 3}}, r"edge.kind: expected 'conv_transformer' or .*, got 3"),
        ({"views": [{"name": "edge"}]}, r"views\[0\].name: expected a Python identifier other .*, got 'edge'"),
        ({"views": [{"name": "a"}, {"name": "a"}]}, r"views: expected distinct names, got a, a"),
    ],
)
def test_rejects_what_does_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        presets.tiny(**({"num_generators": 2} | changes))


@pytest.mark.parametrize("value", [True, 1.0, "1", None, ["all"]])
def test_a_choice_is_taken_by_type_too(value):
    with pytest.raises(RangeError, match=r"edge.token_patch: expected 'all' or 1, got "):
        presets.tiny(num_generators=2, edge={"token_patch": value})


def test_rejects_bad_choices_and_generators():
    with pytest.raises(RangeError, match=r"fusion.kind: expected 'sum' or 'concat' or 'cross_attention', got 'mean'"):
        presets.tiny(num_generators=2, fusion={"kind": "mean"})
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
    with pytest.raises(ConfigError, match=r"fusin: .*, got no such; did you mean fusion of BMRLConfig\?"):
        BMRLConfig.from_dict(data | {"fusin": 3})
    with pytest.raises(ConfigError, match=r"head.nrm: .*, got no such; did you mean head.norm of HeadConfig\?"):
        BMRLConfig.from_dict(data | {"head": {"nrm": 3}})
    with pytest.raises(ConfigError, match=r"3: expected a field of BMRLConfig"):
        BMRLConfig.from_dict(data | {3: 3})
    with pytest.raises(ConfigError, match=r"generators: expected a value, got none"):
        BMRLConfig.from_dict({"image_size": 64})
    with pytest.raises(ConfigError, match=r"generators\[0\].manipulation: expected a value, got none"):
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
    lists = {"edge.channels": [16, 32, 96, 192, 256], "*.dropout": 0, "decision": {"thresholds": [0.5]}}
    first = presets.tiny(num_generators=2, **lists)
    second = presets.tiny(num_generators=2, **{"decision.thresholds": (0.5,)})
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())
