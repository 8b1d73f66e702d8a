"""Trees of dataclasses: every field has a doc, dotted names change them, and errors give dotted names."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmrl._fields import FieldDoc, field_docs, names_of
from bmrl.encoders import ConvTransformerConfig
from bmrl.encoders.kinds import ENCODERS
from bmrl.errors import ConfigError
from bmrl.models import BMRLConfig, presets
from bmrl.models.parts import NoiseConfig

DOCS = {entry.name: entry for entry in field_docs(BMRLConfig)}
TINY = presets.tiny(num_generators=2)


def test_every_field_has_a_doc():
    assert [name for name, entry in DOCS.items() if not name.startswith("generators.") and len(entry.doc) < 10] == []


def test_docs_name_every_field_of_every_kind_once():
    names = [entry.name for entry in field_docs(BMRLConfig)]
    assert len(set(names)) == len(names)
    for kind in ENCODERS.values():
        for field in dataclasses.fields(kind.config):
            assert {f"appearance.{field.name}", f"noise.encoder.{field.name}"} <= set(names)
    assert set(names) == {name for name in names_of(BMRLConfig)["BMRLConfig"] if not name.startswith("*.")}


def test_what_a_doc_says():
    assert DOCS["appearance.num_blocks"] == FieldDoc(
        "appearance.num_blocks", "integer >= 1 and <= 1000", 6, "Transformer blocks."
    )
    assert DOCS["image_size"].type == "integer >= 1"
    assert DOCS["noise.truncation"].type == "number > 0"
    assert DOCS["edge.dropout"].type == "number >= 0 and < 1"
    assert DOCS["edge.channels"].type == "list of integer >= 1"
    assert DOCS["head.norm"].type == "true or false"
    assert DOCS["language.readout"].type == "last_level or first_level"
    assert DOCS["noise.patch_size"].type == "integer >= 2, or null"
    assert DOCS["edge"].type.startswith("fields of kind conv_transformer or ")
    assert DOCS["edge.kind"].type == " or ".join([*ENCODERS, "custom"])
    assert DOCS["edge"].type.endswith("custom, or null")
    assert DOCS["edge"].default == ConvTransformerConfig()
    assert DOCS["noise.encoder.final_pool"].default is True  # of the encoder; the noise view's own default differs
    assert DOCS["noise"].default == NoiseConfig()
    assert DOCS["generators"].default is dataclasses.MISSING
    assert DOCS["edge.module"].doc.endswith("(kind custom)")


@given(st.sampled_from(["appearance", "edge", "noise.encoder", "parsing", "language"]), st.integers(1, 9))
def test_a_dotted_name_changes_one_field(part, blocks):
    changed = TINY.with_changes({f"{part}.num_blocks": blocks}).to_dict()
    expected = TINY.to_dict()
    place = expected
    for step in part.split("."):
        place = place[step]
    place["num_blocks"] = blocks
    assert changed == expected


def test_every_part_at_once_and_one_otherwise():
    for changes in ({"*.num_heads": 8, "edge.num_heads": 2}, {"edge.num_heads": 2, "*.num_heads": 8}):
        config = TINY.with_changes(changes)
        assert config.edge.num_heads == 2
        others = (config.appearance, config.noise.encoder, config.parsing, config.language, config.fusion)
        assert {part.num_heads for part in others} == {8}


def test_a_part_as_a_mapping_an_object_or_nothing():
    assert TINY.with_changes(noise={"truncation": 1}).noise == dataclasses.replace(TINY.noise, truncation=1.0)
    nested = {"noise": {"encoder": {"num_blocks": 5}}}
    assert TINY.with_changes(nested) == TINY.with_changes({"noise.encoder.num_blocks": 5})
    own = ConvTransformerConfig(num_blocks=1, channels=(8,), convs_per_stage=(1,))
    assert TINY.with_changes(edge=own, **{"edge.mlp_dim": 7}).edge == dataclasses.replace(own, mlp_dim=7)
    assert TINY.with_changes(edge=None).edge is None
    assert TINY.with_changes(edge=None).with_changes(edge={"num_heads": 4}).edge == ConvTransformerConfig(num_heads=4)
    assert TINY.to_dict() == presets.tiny(num_generators=2).to_dict()  # nothing was changed in place


def test_a_new_kind_begins_with_its_defaults():
    changed = TINY.with_changes({"edge.module": "mine", "edge.kind": "custom"}).edge
    assert dataclasses.asdict(changed) == {"kind": "custom", "module": "mine"}
    back = dataclasses.replace(TINY, edge=changed).with_changes({"edge": {"kind": "conv_transformer"}})
    assert back.edge == ConvTransformerConfig()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge.num_block": 1}, r"edge.num_block: .*; did you mean edge.num_blocks of BMRLConfig\?"),
        ({"num_blocks": 1}, r"num_blocks: .*; did you mean \*.num_blocks of BMRLConfig\?"),
        ({"*.num_bloks": 1}, r"\*.num_bloks: .*; did you mean \*.num_blocks of BMRLConfig\?"),
        ({"edge": None, "edge.num_blocks": 1}, r"edge.num_blocks: expected a part that is on, got edge = None"),
        ({"edge.module": "a"}, r"edge.module: expected a field of ConvTransformerConfig \(channels, .*got no such"),
        ({"edge": {"depth": 1}}, r"edge.depth: expected a field of ConvTransformerConfig \(channels, "),
        ({"edge": {3: 1}}, r"edge.3: expected a field of ConvTransformerConfig"),
        ({"a\nb": 1}, r"^'a\\nb': expected a field of BMRLConfig"),
        ({3: 1}, r"^3: expected a field of BMRLConfig"),
    ],
)
def test_changes_that_do_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        TINY.with_changes(changes)
    assert "\n" not in str(error.value)


def test_changes_are_a_mapping():
    with pytest.raises(ConfigError, match=r"changes: expected fields by name, got \['edge'\]|got list"):
        TINY.with_changes(["edge"])
