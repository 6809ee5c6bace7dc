"""Evaluation and audit shared among processes: the figures of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf.schema.ladder import Ladder
from tasks.audit import compute
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of, write_functions

SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 24}


def ladder_of(workers: int = 0) -> Ladder:
    training = {"steps": 6, "batch_size": 5, "precision": "fp32"}
    launched: dict[str, Any] = {"launcher": "torchrun", "workers": workers} if workers else {}
    return Ladder.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 8, "valid_fraction": 0.2, "test_fraction": 0.2},
            "teacher": {"source": "train", "shape": SHAPE, "training": training, "allow_poor": True},
            "compute": {"at_once": None, "device": "cpu", "threads": 1, **launched},
            "evaluation": {"examples": 11, "batch_size": 2},
            "tracking": "off",
            "stages": [{"name": "small", "student": {"shape": SHAPE | {"layers": 1}}, "training": training}],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_functions(tmp_path)
    return tmp_path


def in_home(folder: Path, home: str, workers: int = 0) -> StageInputs:
    (folder / home).mkdir()
    inputs = inputs_of(ladder_of(workers), folder)
    return StageInputs(inputs.ladder, inputs.data, inputs.context.model_copy(update={"home": str(folder / home)}))


def audit_of(place: Path, student: StageRecord, root: StageRecord, inputs: StageInputs) -> dict[str, Any]:
    place.mkdir()
    compute.audited({"student": student, "parent": root, "root": root}, inputs, "fp32", "valid", place)
    return json.loads((place / "audit.json").read_text()) | {"seconds": 0}


@pytest.mark.slow
def test_figures_of_several_processes_are_those_of_one(folder: Path) -> None:
    inputs = in_home(folder, "trained")
    root = prepare_teacher(inputs)
    student = train_student(inputs.ladder.stages[0], [root], inputs)
    found = []
    for workers in (0, 2):
        own = in_home(folder, f"e{workers}", workers)
        judged = evaluate_model(student, [root], own, "fp32")
        found.append((judged.metrics, judged.slices, judged.retention, audit_of(folder / f"audit{workers}", student, root, own)))
    assert found[0] == found[1]
    assert not list((folder / "e2" / "store" / "writing").iterdir())
