"""Descriptions of runs in MLflow: teachers, settings of the lesson, quality, links."""

from __future__ import annotations

from tasks.records.run import Retention, StageRecord
from tasks.tracking.descriptions import describe_ladder, describe_model, headline
from tests.factories import model_record

LESSON = {
    "objective": {"kind": "forward-kl", "alpha": {"start": 0.9, "end": 0.5}, "temperature": {"start": 2.0, "end": None}},
    "training": {"steps": 1200, "batch_size": 32, "learning_rate": 0.004},
    "seed": 3,
}


def model(name: str, **changes: object) -> StageRecord:
    return model_record(name, identity=LESSON, mlflow_run_id=f"run-{name}", metrics={"bits_per_byte": 2.0}, **changes)


ROOT, PARENT = model("teacher"), model("300k", teachers=("teacher",), retention=Retention(parent=0.9, root=0.9), gate="passed")
REASON = "100k keeps 0.8 of the root"
CHILD = model("100k", teachers=("300k", "teacher"), retention=Retention(parent=0.95, root=0.8), gate="warned", gate_reasons=(REASON,))


def test_a_student_says_who_taught_it_how_and_how_good_it_is() -> None:
    told = describe_model(CHILD, [ROOT, PARENT], "7")
    assert told.splitlines() == [
        "Taught by [300k](#/experiments/7/runs/run-300k?workflowType=machine_learning) and "
        "[teacher](#/experiments/7/runs/run-teacher?workflowType=machine_learning) "
        "(forward-kl, alpha 0.9 to 0.5, temperature 2; 1,200 steps of 32, learning rate 0.004; seed 3).",
        "",
        "1k parameters; 2.000 bits per byte on the valid split: 95.0 % of 300k, 80.0 % of the root.",
        "",
        "Its gate: warned, because 100k keeps 0.8 of the root.",
    ]


def test_roots_and_students_of_labels_alone() -> None:
    assert describe_model(ROOT, [], "7").startswith("The root teacher, trained here (")
    assert describe_model(model_record("teacher", steps=0), [], "7") == (
        "The root teacher, imported.\n\n1k parameters; not judged on the valid split."
    )
    assert describe_model(model("100k"), [ROOT], "7").startswith("Trained from labels alone (")


def test_the_ladder_has_a_line_for_each_model_and_what_was_asked() -> None:
    reused = PARENT.model_copy(update={"reused": True, "reused_from": "earlier"})
    told = describe_ladder([ROOT, reused], "7", ["[Run in Prefect](http://p)", "", "a note"])
    assert told.startswith("[Run in Prefect](http://p) a note\n\n| model |")
    assert told.splitlines()[-1].endswith("| teacher | 2.000 bits per byte | 90.0 % | 90.0 % | passed | reused from earlier |")


def test_a_headline_is_few_figures() -> None:
    assert headline(PARENT) == {"300k/bits_per_byte": 2.0, "300k/of_parent": 0.9, "300k/of_root": 0.9}
    assert headline(model_record("c", metrics={"accuracy": 0.5, "nll": 1.0})) == {"c/accuracy": 0.5}
