from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from bmrl.errors import ServerError
from bmrl.export import ServedModel
from bmrl.generators import Generator, is_name
from bmrl.inference import Limits

families = st.sampled_from([("none", "none"), ("EFS", "GAN"), ("AM", "diffusion"), ("FS", "GAN")])
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
labels = names.filter(is_name)
generators = st.builds(
    lambda name, family: Generator(name=name, manipulation=family[0], architecture=family[1]), labels, families
)
served_models = st.builds(
    ServedModel,
    generators=st.lists(generators, min_size=1, max_size=4).map(tuple),
    image_size=st.integers(1, 4096),
    embed_dim=st.integers(1, 4096),
    thresholds=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3).map(tuple),
    limits=st.builds(
        lambda seen, gap, probability: Limits(unseen=seen - gap, seen=seen, probability=probability, score="energy"),
        st.floats(-1e6, 1e6),
        st.floats(0, 1e3),
        st.floats(0, 1),
    ),
    max_batch_size=st.integers(1, 1024),
    tensors=st.tuples(names, names, names, names),
)


def config_of(served, name="bmrl"):
    config = ModelConfig(name=name, max_batch_size=served.max_batch_size)
    image, *outputs = served.tensors
    config.input.add(name=image)
    for output in outputs:
        config.output.add(name=output)
    for key, text in served.to_parameters().items():
        config.parameters[key].string_value = text
    return config


@given(served_models)
def test_survives_the_way_through_a_configuration(served):
    assert ServedModel.from_config(ModelConfig.FromString(config_of(served).SerializeToString())) == served


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("generators", None, "KeyError: 'generators'"),
        ("generators", "[", "JSONDecodeError"),
        ("generators", '[{"name": "a"}]', "TypeError"),
        ("generators", '[{"name": "a", "manipulation": "b", "architecture": "GAN"}]', "RangeError"),
        ("image_size", '"large"', "DTypeError"),
        ("thresholds", "0.5", "TypeError"),
        ("limits", "{}", "RangeError"),
        ("limits", "[]", "RangeError"),
    ],
)
def test_names_what_a_foreign_configuration_lacks(name, text, reason):
    generator = Generator(name="a", manipulation="EFS", architecture="GAN")
    limits = Limits.of_threshold(0.5)
    served = ServedModel(
        generators=(generator,), image_size=8, embed_dim=4, thresholds=(0.5,), limits=limits, max_batch_size=2
    )
    config = config_of(served, "other")
    if text is None:
        del config.parameters[name]
    else:
        config.parameters[name].string_value = text
    with pytest.raises(
        ServerError, match=f"^other: expected a model configuration written by bmrl, got .*{reason}"
    ) as e:
        ServedModel.from_config(config)
    assert "\n" not in str(e.value)
