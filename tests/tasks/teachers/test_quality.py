"""Root teachers that are no better than a guess, or answer NaN."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf.errors import UserError
from conf.schema.stage.gate import Gate
from conf.schema.teacher import CheckpointTeacher, TrainedTeacher
from tasks.evaluation.gate import judge
from tasks.records.run import Retention
from tasks.report.sections.outcome import verdicts
from tasks.teachers.quality import accept_teacher
from tests.factories import corpus_in, model_record, run_record, split_of


def inputs(workload: str, allow_poor: bool = False) -> Any:
    return SimpleNamespace(ladder=SimpleNamespace(workload=workload, teacher=SimpleNamespace(allow_poor=allow_poor)))


def trained(folder: Path, steps: int, labelled: int, unlabelled: int = 0, **settings: Any) -> Any:
    """Inputs of a teacher that is trained here for so many steps of 10 examples."""
    shape = {"family": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
    teacher = TrainedTeacher.model_validate({"shape": shape, "training": {"steps": steps, "batch_size": 10}, **settings})
    labels = [0] * labelled + [-1] * unlabelled
    some = [[1]] * len(labels)
    splits = {name: split_of(some, labels, [0] * len(labels), [1] * len(labels)) for name in ("train", "valid", "test")}
    corpus = corpus_in(folder / f"{labelled}-{unlabelled}", "sequence-classification", 8, splits, classes=2)
    ladder = SimpleNamespace(workload="sequence-classification", teacher=teacher, seed=0)
    return SimpleNamespace(ladder=ladder, data=SimpleNamespace(corpus=lambda: corpus))


def classifier(accuracy: float, nll: float = 0.4, distinct: int = 2) -> dict[str, float]:
    return {"accuracy": accuracy, "nll": nll, "distinct_answers": distinct, "baseline_accuracy": 0.6, "baseline_nll": 0.67}


def language(nll: float) -> dict[str, float]:
    return {"accuracy": 0.3, "nll": nll, "bits_per_byte": nll, "baseline_accuracy": 0.1, "baseline_nll": 3.0, "baseline_bits_per_byte": 3.0}


@pytest.mark.parametrize(
    ("workload", "metrics"),
    [
        ("sequence-classification", classifier(0.61)),
        ("sequence-classification", classifier(0.61, nll=2.0)),  # overconfident, and right more often
        ("causal-lm", language(2.99)),
        ("image-classification", {"accuracy": 0.1, "nll": 9.0}),  # judged by a version without baselines
    ],
)
def test_a_teacher_that_is_better_than_a_guess_teaches(workload: str, metrics: dict[str, float]) -> None:
    record = model_record("teacher", metrics=metrics)
    assert accept_teacher(record, inputs(workload)) is record


@pytest.mark.parametrize(
    ("workload", "metrics", "figures"),
    [
        ("sequence-classification", classifier(0.0), "accuracy 0.0 %, the majority class 60.0 %, on the same held-out examples"),
        ("sequence-classification", classifier(0.6), "accuracy 60.0 %, the majority class 60.0 %"),
        ("image-classification", classifier(0.6, nll=0.9, distinct=1), "accuracy 60.0 %, the majority class 60.0 %"),
        ("causal-lm", language(3.0), "3.000 nats a token, unigram frequencies 3.000, on the same held-out tokens"),
        ("causal-lm", language(math.inf), "inf nats a token, unigram frequencies 3.000"),
    ],
)
def test_a_poor_teacher_is_refused_with_its_figures(workload: str, metrics: dict[str, float], figures: str) -> None:
    record = model_record("teacher", metrics=metrics)
    with pytest.raises(UserError) as caught:
        accept_teacher(record, inputs(workload))
    assert figures in str(caught.value)
    assert "teacher.allow_poor=true" in str(caught.value)
    allowed = accept_teacher(record, inputs(workload, allow_poor=True))
    assert allowed.poor is not None
    assert figures in allowed.poor


@pytest.mark.parametrize(("steps", "examples", "trial"), [(99, 50, "99 steps"), (100, 1001, "100 steps, less than an epoch")])
def test_a_short_training_here_may_be_poor(
    tmp_path: Path, steps: int, examples: int, trial: str, calm: None, caplog: pytest.LogCaptureFixture
) -> None:
    record = model_record("teacher", metrics=classifier(0.5))
    with caplog.at_level("WARNING"):
        assert accept_teacher(record, trained(tmp_path, steps, examples)).poor is not None
    assert f"it teaches all the same, after a trial of {trial}" in caplog.text
    with pytest.raises(UserError, match=r"accuracy 50\.0 %, the majority class 60\.0 %"):
        accept_teacher(record, trained(tmp_path / "again", steps, examples, allow_poor=False))


def test_a_long_training_here_may_not(tmp_path: Path) -> None:
    record = model_record("teacher", metrics=classifier(0.5))
    with pytest.raises(UserError, match=r"train it longer; teacher\.allow_poor=true lets it teach"):
        accept_teacher(record, trained(tmp_path, 100, 1000, unlabelled=500))  # an epoch of a teacher is one of labelled rows
    assert accept_teacher(record, trained(tmp_path / "again", 100, 1000, allow_poor=True)).poor is not None
    assert CheckpointTeacher.model_fields["allow_poor"].default is False


def test_answers_with_nan_are_refused_whatever_is_allowed() -> None:
    record = model_record("teacher", metrics=language(math.nan))
    with pytest.raises(UserError, match="answers with NaN on held-out tokens"):
        accept_teacher(record, inputs("causal-lm", allow_poor=True))


def test_below_a_poor_root_no_gate_passes_silently() -> None:
    root = model_record("teacher", poor="accuracy 50.0 %, the majority class 60.0 %")
    student = model_record("small", retention=Retention(parent=1.1, root=1.1))
    verdict, reasons = judge(student, Gate(min_root_retention=0.9), [root])
    assert verdict == "warned"
    assert reasons == ("the root teacher is poor: accuracy 50.0 %, the majority class 60.0 %",)
    assert judge(student, Gate(min_root_retention=1.2), [root])[0] == "stopped"
    assert judge(student, Gate(min_root_retention=0.9), [model_record("teacher")]) == ("passed", ())


def test_the_report_says_that_the_root_is_poor(tmp_path: Path) -> None:
    root = model_record("teacher", metrics=classifier(0.5), poor="accuracy 50.0 %, the majority class 60.0 %")
    record = run_record("tiny-1", root, model_record("small", metrics=classifier(0.5)), workload="sequence-classification")
    assert "it is poor, and teaches as teacher.allow_poor lets it: accuracy 50.0 %, the majority class 60.0 %" in verdicts(record)[0]
