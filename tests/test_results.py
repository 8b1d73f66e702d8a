"""What the functions at the top of bmrl return: frozen dataclasses that become plain data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import bmrl
from bmrl._results import Result, plain
from bmrl.data import ImportReport, SimulationReport, import_faces, simulate
from bmrl.evaluation import Comparison, Evaluation, MethodResult, Summary
from bmrl.evaluation.predictions import Skipped
from bmrl.export import ExportResult
from bmrl.training import TrainingRun

RESULTS = [
    *(bmrl.Attribution, Comparison, Evaluation, ExportResult, ImportReport, MethodResult, SimulationReport, Skipped),
    *(Summary, TrainingRun),
]


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_is_frozen_and_says_what_each_field_is(kind):
    assert issubclass(kind, Result)
    assert kind.__dataclass_params__.frozen
    assert "__dict__" not in vars(kind)  # slots: no attribute is made by a typo
    for field in dataclasses.fields(kind):
        described = any(f"{field.name}:" in (parent.__doc__ or "") for parent in kind.__mro__)
        assert described, field.name


def test_reports_are_complete_json(tmp_path):
    drawn = simulate(tmp_path / "drawn", images_per_generator=10, image_size=64)
    (tmp_path / "faces").mkdir()
    for name in ("sim_camera", "sim_shuffle"):
        (tmp_path / "drawn" / name).rename(tmp_path / "faces" / {"sim_camera": "real_é", "sim_shuffle": "ProGAN"}[name])
    taken = import_faces(tmp_path / "faces", tmp_path / "out")
    for report in (drawn, taken):
        fields = {field.name for field in dataclasses.fields(report)}
        assert set(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == fields
        with pytest.raises(dataclasses.FrozenInstanceError):
            report.folder = Path("other")
    assert json.loads((tmp_path / "out" / "import_report.json").read_text(encoding="utf-8")) == taken.to_dict()


def test_plain_data_has_the_types_of_json():
    assert plain({"a": (Path("b"), 1), 2: frozenset([3])}) == {"a": ["b", 1], "2": [3]}
