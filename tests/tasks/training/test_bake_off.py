"""A stage's teacher is chosen by short trainings, which are stored, counted and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conf.home import Home
from conf.schema.ladder import Ladder
from models.architectures.shapes import size_of
from tasks.planning.budget import answers_in_turn
from tasks.planning.matching import flops_of, total_of
from tasks.planning.plan import make_plan
from tasks.records.choice.teacher import TeacherTrial
from tasks.records.run import StageRecord
from tasks.report.sections.choice.teachers import section
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.tracking.figures import metrics_of
from tasks.training.bake_off import chosen_of
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import training_examples
from tasks.training.student import train_student
from tests.factories import inputs_of, model_record, run_record

pytestmark = pytest.mark.thorough

SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward": 24}
TRAINING = {"steps": 8, "batch_size": 4, "precision": "fp32"}
BEST = {"teachers": "best", "bake_off": 0.5}


def ladder_of(*stages: dict[str, Any]) -> Ladder:
    return Ladder.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 8, "valid_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"kind": "bytes"},
            "teacher": {"source": "train", "shape": SHAPE | {"layers": 3}, "training": TRAINING, "allow_poor": True},
            "compute": {"at_once": None, "device": "cpu"},
            "evaluation": {"examples": 8},
            "stages": [
                {"name": f"s{place}", "student": {"shape": SHAPE | {"layers": 2 - place}}, "training": TRAINING, **given}
                for place, given in enumerate(stages)
            ],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    (tmp_path / "home").mkdir()
    for index in range(9):
        text = f"def function_{index}(value):\n    return value * {index % 5} + len('{index}')\n" * 2
        (tmp_path / "texts" / f"{index}.txt").write_text(text)
    return tmp_path


def made(ladder: Ladder, inputs: StageInputs) -> list[StageRecord]:
    """The models of a ladder, root first."""
    lineage = [prepare_teacher(inputs)]
    for stage in ladder.stages:
        lineage.append(train_student(stage, lineage, inputs))
    return lineage


def same(one: StageRecord, other: StageRecord) -> bool:
    first, second = (load_file(Path(record.folder) / "model.safetensors") for record in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_best_of_one_ancestor_is_the_ordinary_stage_to_the_last_bit(folder: Path) -> None:
    plain, best = ladder_of({}), ladder_of({"teachers": "best"})
    [_, first] = made(best, inputs_of(best, folder))
    assert first.choice is None
    [_, again] = made(plain, inputs_of(plain, folder))
    assert again.reused, "so it is found again"
    assert (again.fingerprint, again.flops) == (first.fingerprint, first.flops)


@pytest.mark.parametrize("source", ["live", "cached"])
def test_the_best_trial_names_the_teacher_and_all_of_it_is_counted_stored_and_found(folder: Path, source: str) -> None:
    signals = {"signals": {"source": source, "kind": "full"}}
    ladder = ladder_of(signals, BEST | signals)
    before = make_plan(ladder, folder, Home(folder / "home"))
    inputs = inputs_of(ladder, folder)
    _, first, second = made(ladder, inputs)
    choice = second.choice
    assert choice is not None
    assert ([trial.teacher for trial in choice.trials], choice.steps) == (["s0", "teacher"], 4), "the nearest first"
    assert choice.chosen.score == min(trial.score for trial in choice.trials)
    assert metrics_of(second).items() >= {"choice/s0": choice.trials[0].score, "choice/teacher": choice.trials[1].score}.items()

    # The student is that of a stage whose teacher is named.
    named = ladder_of(signals, {"teachers": "root" if choice.place == 0 else "parent"} | signals)
    ordinary = made(named, inputs_of(named, folder))[2]
    assert ordinary.fingerprint == second.fingerprint
    assert same(ordinary, second)

    # FLOPs: plan as of the root, and after the choice as trained.
    shapes = [ladder.teacher.shape, *(stage.student.shape for stage in ladder.stages)]
    forwards = [Forward.of(size_of(shape, inputs.data.corpus().interface)) for shape in shapes if shape is not None]
    examples = training_examples(inputs.data.corpus(), source == "cached")
    counted = flops_of(ladder, forwards, examples, chosen=[None, choice.place])
    assert [cost.total for cost in counted] == [first.flops, second.flops]
    as_root = flops_of(ladder, forwards, examples)
    assert source == "cached" or total_of(as_root) >= total_of(counted), "the root's cache has answers of the first stage"
    [budgeted] = answers_in_turn([ladder], inputs.data)
    assert [answers.trial_steps for _, answers in budgeted] == [0, 8]

    plan = make_plan(ladder, folder, Home(folder / "home"))
    assert plan.stages[1].flops == as_root[1].total
    assert [stage.action for stage in plan.stages] == ["reuse", "reuse"]
    assert [stage.action for stage in before.stages] == ["compute", "compute"]
    assert any("trials of 4 steps with each of the 2 models above choose its teacher;" in note for note in before.notes)

    again = made(ladder, inputs)[2]
    assert again.choice == choice
    assert again.reused


def trial(teacher: str, place: int, score: float, nll: float) -> TeacherTrial:
    return TeacherTrial(teacher=teacher, place=place, score=score, nll=nll, fingerprint=teacher, flops=1.0, seconds=1.0)


@pytest.mark.parametrize(
    ("metric", "scores", "place"),
    [
        ("accuracy", [(0.8, 0.5), (0.9, 0.7), (0.7, 0.1)], 1),
        ("accuracy", [(0.9, 0.5), (0.9, 0.4), (0.7, 0.1)], 1),
        ("accuracy", [(0.9, 0.5), (0.9, 0.5), (0.9, 0.5)], 2),
        ("bits_per_byte", [(2.1, 0.5), (2.0, 0.7), (2.2, 0.1)], 1),
    ],
)
def test_the_better_score_then_the_lower_nll_then_the_nearest_is_chosen(metric: str, scores: list[tuple[float, float]], place: int) -> None:
    trials = [trial(f"m{2 - i}", 2 - i, *each) for i, each in enumerate(scores)]
    assert chosen_of(trials, metric, 4).place == place


def test_the_report_shows_every_trial_and_which_model_teaches() -> None:
    choice = chosen_of([trial("half", 1, 0.8, 0.5), trial("teacher", 0, 0.9, 0.4)], "accuracy", 30)
    shown = section(run_record("tiny-1", model_record("teacher"), model_record("half"), model_record("quarter", choice=choice)))
    assert shown is not None
    [table] = shown["tables"]
    assert [row[:4] + row[5:] for row in table["rows"]] == [
        ["quarter", "half", "30", "80.0 %", ""],
        ["quarter", "teacher", "30", "90.0 %", "teaches"],
    ]
    assert section(run_record("tiny-1", model_record("teacher"), model_record("half"))) is None
