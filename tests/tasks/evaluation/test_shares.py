"""Evaluation and audit shared among processes: the figures of one, whatever fails or dies on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from conf.errors import LadderError, UserError
from conf.schema.ladder import Ladder
from tasks.audit import compute
from tasks.evaluation.evaluate import evaluate_model
from tasks.evaluation.shares import Share, in_shares
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
    assert not list((folder / "e2").glob("shares-*"))


def share_refuses(inputs: StageInputs, share: Share) -> int:
    if share.number:
        raise UserError("share 1 refuses")
    return 0


def share_dies(inputs: StageInputs, share: Share) -> int:
    if share.number:
        raise RuntimeError("it fell")
    return share_sleeps(inputs, share)


def share_sleeps(inputs: StageInputs, share: Share) -> int:
    time.sleep(3600)
    return share.number


@pytest.mark.slow
def test_an_error_is_told_and_a_dead_process_ends_the_others(folder: Path) -> None:
    inputs = in_home(folder, "errors", 2)
    with pytest.raises(UserError, match="share 1 refuses"):
        in_shares(share_refuses, inputs, 2)
    began = time.monotonic()
    with pytest.raises(LadderError, match=r"^process 1 of the evaluation died: .*it fell"):
        in_shares(share_dies, inputs, 2)
    assert time.monotonic() - began < 60, "the other one sleeps for an hour"


RUN = """
import sys
from pathlib import Path
from tests.tasks.evaluation.test_shares import in_home, in_shares, share_sleeps
in_shares(share_sleeps, in_home(Path(sys.argv[1]), "killed", 2), 2)
"""


@pytest.mark.slow
def test_processes_end_when_their_run_is_killed(folder: Path) -> None:
    def shares() -> list[psutil.Process]:
        return [each for each in psutil.process_iter(["cmdline"]) if f"{folder}/killed/shares-" in " ".join(each.info["cmdline"] or [])]

    def wait_until(number: int) -> None:
        until = time.monotonic() + 60
        while len(shares()) != number:
            assert time.monotonic() < until, number
            time.sleep(0.1)

    run = subprocess.Popen([sys.executable, "-c", RUN, str(folder)])
    wait_until(2)
    time.sleep(2)  # each has read its order by then, and looks for its run
    run.kill()
    run.wait()
    wait_until(0)
