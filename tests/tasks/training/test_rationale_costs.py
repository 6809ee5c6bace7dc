"""The added examples of rationales are counted: by a plan before and after preparation, by a budget, a proof's arms and the training."""

import json
from pathlib import Path
from typing import Any

import pytest

from conf.home import Home
from conf.schema.ladder import Ladder
from tasks.data.prepare import prepare_data
from tasks.planning.budget import answers_in_turn
from tasks.planning.plan import make_plan
from tasks.proof.arms import arm_flops
from tasks.proof.prepare_arms import arms_of
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.costs.examples import TrainingExamples, training_examples
from tasks.training.identity import numeric_settings, untaught
from tasks.training.student import train_student

pytestmark = pytest.mark.thorough

SHAPE = {"family": "llama", "hidden_size": 16, "heads": 2, "feed_forward": 16}
TRAINING = {"steps": 3, "batch_size": 4, "precision": "fp32"}


def ladder_in(folder: Path, every: int, *stages: dict[str, Any]) -> Ladder:
    """Rows of which every so many have no rationale, 0: all have one; and stages below a teacher that is trained here."""
    folder.mkdir(exist_ok=True)
    rows = [{"q": f"{n}+1?", "a": str(n + 1), "why": None if every and n % every == 0 else f"after {n} comes {n + 1}"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    students = [{"shape": SHAPE | {"layers": 3 - place}, "initialisation": "random"} for place in range(len(stages))]
    made = [{"name": f"s{place}", "student": students[place], "training": TRAINING, **given} for place, given in enumerate(stages)]
    columns = {"prompt": "q", "completion": "a", "rationale": "why"}
    return Ladder.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "paths": ["rows.jsonl"], "sequence_length": 48, "columns": columns},
            "teacher": {"source": "train", "shape": SHAPE | {"layers": 4}, "training": TRAINING},
            "compute": {"at_once": None, "device": "cpu"},
            "evaluation": {"examples": 4, "samples": 0},
            "proof": {"arms": ["staged", "direct-matched"]},
            "stages": made,
        }
    )


def trained(ladder: Ladder, context: Context) -> list[StageRecord]:
    inputs = StageInputs(ladder, prepare_data(ladder, context), context)
    lineage = [prepare_teacher(inputs)]
    for stage in ladder.stages:
        lineage.append(train_student(stage, lineage, inputs))
    return lineage


def test_every_count_of_a_ladder_holds_its_rationales(tmp_path: Path) -> None:
    cached, live = {"signals": {"source": "cached", "kind": "full"}}, {"signals": {"source": "live"}}
    alone = {"objective": {"rationale": 0.0, "alpha": 0.5}}
    ladder = ladder_in(tmp_path, 0, cached, {**live, **alone, "teachers": ["root"]}, {**live, "objective": {"rationale": 2.0}})
    context = Context(run="run-1", ladder="tiny", home=str(tmp_path / "home"), base=str(tmp_path))
    before = make_plan(ladder, tmp_path, Home(tmp_path / "home"))
    data = prepare_data(ladder, context)
    planned, [budget] = make_plan(ladder, tmp_path, Home(tmp_path / "home")), answers_in_turn([ladder], data)
    forwards = arms_of(ladder, data, context).forwards
    records = trained(ladder, context)
    root, first, second, third = (each.whole for each in (forwards.root, *forwards.students))
    rows = TRAINING["steps"] * TRAINING["batch_size"]
    expected = [3 * root * 2 * rows, (3 * first + root) * 2 * rows, (3 * second + root) * rows, (3 * third + second) * 2 * rows]
    assert [record.flops for record in records] == expected
    for plan in (before, planned):
        assert [model.flops for model in (plan.teacher, *plan.stages)] == expected
        assert [model.tokens for model in (plan.teacher, *plan.stages)] == [2 * rows * 48, 2 * rows * 48, rows * 48, 2 * rows * 48]
    assert [sum(answers.new) for _, answers in budget] == [2 * rows, rows, 2 * rows]
    assert [cost.total for cost in arm_flops("staged", ladder, forwards)] == expected[1:]
    assert records[1].answers_asked == 2 * rows
    with_, without = records[1].tokens / rows, records[2].tokens / rows
    assert with_ > 3 * without, "tokens that a step learns, those of rationales included"


def test_rows_without_a_rationale_are_one_example(tmp_path: Path) -> None:
    ladder = ladder_in(tmp_path, 2, {"signals": {"source": "cached", "kind": "full"}, "training": TRAINING | {"steps": 40}})
    context = Context(run="run-1", ladder="tiny", home=str(tmp_path / "home"), base=str(tmp_path))
    data = prepare_data(ladder, context)
    info, plan = data.corpus().info, make_plan(ladder, tmp_path, Home(tmp_path / "home"))
    documents = info.documents["train"]
    assert 0 < info.rationales < documents
    epoch = training_examples(data.corpus(), cached=True)
    assert epoch == TrainingExamples(documents, (), info.rationales)
    teacher, student = trained(ladder, context)
    root, own = (record.flops_per_token * 48 for record in (teacher, student))
    drawn = 160 + 160 * info.rationales // documents
    assert student.answers_asked == documents + info.rationales
    assert student.flops == plan.stages[0].flops == 3 * own * drawn + root * (documents + info.rationales)


def test_texts_that_the_student_writes_have_no_rationale(tmp_path: Path) -> None:
    writes = {"signals": {"source": "on-policy"}}
    with pytest.raises(ValueError, match=r"stages\[0\]\.objective\.rationale: got 1\.0; allowed: 0, with signals on-policy"):
        ladder_in(tmp_path, 0, writes)
    assert ladder_in(tmp_path, 0, {**writes, "objective": {"rationale": 0.0}}).stages[0].signals.on_policy


@pytest.mark.parametrize(("weight", "counts"), [(None, 10), (0.0, 0), (2.5, 10)])
def test_unknown_data_count_as_if_every_row_had_one(tmp_path: Path, weight: float | None, counts: int) -> None:
    ladder = ladder_in(tmp_path, 0, {})
    assert TrainingExamples(None).explained(ladder, weight, 10) == counts
    assert TrainingExamples(40, rationales=20).explained(ladder, weight, 10) == counts // 2
    columns = {"prompt": "q", "completion": "a"}
    plain = ladder.model_copy(update={"data": ladder.data.model_validate(ladder.data.model_dump() | {"columns": columns})})
    assert TrainingExamples(None).explained(plain, weight, 10) == 0


def test_the_weight_is_in_the_identity_where_it_is_set_and_the_control_keeps_it(tmp_path: Path) -> None:
    plain, weighed = ladder_in(tmp_path, 0, {}, {"objective": {"rationale": 0.5}}).stages
    assert "rationale" not in json.dumps(numeric_settings(plain))
    assert numeric_settings(weighed)["objective"]["rationale"] == 0.5
    assert untaught(weighed).objective.rationale == 0.5
