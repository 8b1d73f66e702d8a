from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmrl.errors import ConfigError, RangeError
from bmrl.models import BMRLConfig, Generator, presets


def test_paper_is_the_papers():
    config = presets.paper(num_generators=10)
    assert (config.image_size, config.patch_size, config.embed_dim) == (224, 112, 512)
    assert (config.visual_blocks, config.parsing_blocks, config.language_blocks) == (6, 6, 6)
    assert config.num_levels * config.context_length == 308
    assert (config.token_patch, config.fusion, config.thresholds) == ("all", "sum", (0.7, 0.9))
    assert config.num_generators == 10


def test_tiny_is_small():
    config = presets.tiny(num_generators=3)
    assert config.image_size <= 128
    assert [generator.name for generator in config.generators] == ["generator_0", "generator_1", "generator_2"]


@given(
    st.sampled_from([presets.paper, presets.tiny]),
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5, unique=True),
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
        ({"dropout": 1.0}, r"dropout: expected 0 <= dropout < 1, got 1.0"),
        ({"edge": "False"}, r"edge: expected true or false, got 'False'"),
        ({"channels": (16.0, 8)}, r"channels: expected integers >= 1, got \(16.0, 8\)"),
        ({"channels": 8}, r"channels: expected a list, got 8"),
        ({"image_size": "128"}, r"image_size: expected an integer >= 1, got '128'"),
        ({"noise_truncation": 0.0}, r"noise_truncation: expected > 0, got 0.0"),
        ({"visual_blocks": 0}, r"visual_blocks: expected an integer >= 1, got 0"),
        ({"thresholds": (0.7, 1.5)}, r"thresholds: expected one or more numbers between 0 and 1, got \(0.7, 1.5\)"),
        ({"appearance": False, "edge": False, "noise": False}, r"expected at least one visual encoder on, got none"),
        ({"appearance": False, "fusion": "cross_attention"}, r"appearance: expected True with fusion"),
    ],
)
def test_rejects_what_does_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        presets.tiny(num_generators=2, **changes)


def test_rejects_bad_choices_and_generators():
    with pytest.raises(RangeError, match=r"fusion: expected 'sum' or 'cross_attention', got 'mean'"):
        presets.tiny(num_generators=2, fusion="mean")
    with pytest.raises(RangeError, match=r"manipulation: expected .*, got 'swap'"):
        Generator(name="a", manipulation="swap", architecture="GAN")
    with pytest.raises(ConfigError, match=r"architecture: expected 'none' exactly when manipulation is 'none'"):
        Generator(name="a", manipulation="none", architecture="GAN")
    twice = [Generator(name="a", manipulation="FS", architecture="GAN")] * 2
    with pytest.raises(ConfigError, match=r"generators: expected distinct names, got a more than once"):
        presets.tiny(generators=twice)
    with pytest.raises(ConfigError, match=r"num_generators: expected >= 1, got 0"):
        presets.tiny(num_generators=0)
    with pytest.raises(ConfigError, match=r"got both or neither"):
        presets.tiny()


def test_rejects_unknown_keys():
    data = presets.tiny(num_generators=2).to_dict()
    with pytest.raises(ConfigError, match=r"depth: expected one of appearance, .*, got an unknown key"):
        BMRLConfig.from_dict(data | {"depth": 3})
    with pytest.raises(ConfigError, match=r"generators: expected a list, got None"):
        BMRLConfig.from_dict({"image_size": 64})
