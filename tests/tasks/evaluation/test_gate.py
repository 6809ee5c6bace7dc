"""The gate: verdicts, and sentences with their figures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from conf.schema.stage.gate import Gate
from tasks.evaluation.gate import curable, judge
from tasks.records.run import Retention, StageRecord
from tests.factories import model_record


def student(parent: float | None = 0.8, root: float | None = 0.6, parameters: int = 100_000) -> StageRecord:
    return model_record("100k", parameters=parameters, retention=Retention(parent=parent, root=root))


@pytest.mark.parametrize("policy", ["stop", "warn"])
def test_a_gate_that_asks_nothing_has_no_verdict(policy: Any) -> None:
    assert judge(student(None, None), Gate(policy=policy)) == (None, ())


@pytest.mark.parametrize(
    "gate",
    [
        Gate(min_parent_retention=0.8),
        Gate(min_root_retention=0.6),
        Gate(max_parameters=100_000),
        Gate(min_parent_retention=0.5, min_root_retention=0.5, max_parameters=200_000),
        Gate(min_parent_retention=0),
    ],
)
def test_what_reaches_the_bound_passes(gate: Gate) -> None:
    assert judge(student(), gate) == ("passed", ())


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ({"min_parent_retention": 0.81}, "100k keeps 0.800 of the parent; gate.min_parent_retention asks at least 0.81"),
        ({"min_root_retention": 0.7}, "100k keeps 0.600 of the root; gate.min_root_retention asks at least 0.7"),
        ({"max_parameters": 99_999}, "100k has 100,000 parameters; gate.max_parameters allows at most 99,999"),
    ],
)
def test_what_misses_it_does_not(gate: dict[str, Any], reason: str) -> None:
    assert judge(student(), Gate(**gate)) == ("stopped", (reason,))
    assert judge(student(), Gate(**gate, policy="warn")) == ("warned", (reason,))


def test_every_reason_is_told() -> None:
    verdict, reasons = judge(student(), Gate(min_parent_retention=0.9, min_root_retention=0.9, max_parameters=1))
    assert verdict == "stopped"
    assert len(reasons) == 3


@pytest.mark.parametrize("figure", [None, math.nan])
def test_a_missing_figure_opens_no_gate(figure: float | None) -> None:
    verdict, reasons = judge(student(parent=figure), Gate(min_parent_retention=0.0))
    assert verdict == "stopped"
    assert reasons[0].startswith(f"100k keeps {'unknown' if figure is None else 'nan'} of the parent")


def test_a_student_better_than_its_teacher_passes() -> None:
    assert judge(student(parent=1.2), Gate(min_parent_retention=1.1))[0] == "passed"


def test_an_assistant_that_learned_little_does_not_open_the_gate() -> None:
    teacher = student(None, None).model_copy(update={"name": "300k"})
    weak = student(0.5, 0.5).model_copy(update={"name": "100k-assistant", "inserted": True})
    gate = Gate(min_parent_retention=0.6)
    assert judge(student(0.9, 0.45), gate, [teacher])[0] == "passed"
    verdict, reasons = judge(student(0.9, 0.45), gate, [teacher, weak])
    assert verdict == "stopped"
    assert reasons == ("100k keeps 0.450 of the parent above 100k-assistant; gate.min_parent_retention asks at least 0.6",)
    strong = weak.model_copy(update={"retention": Retention(parent=0.95, root=0.9)})
    assert judge(student(0.9, 0.8), gate, [teacher, strong])[0] == "passed"
    unknown = weak.model_copy(update={"retention": Retention()})
    assert judge(student(0.9, 0.8), gate, [teacher, unknown])[0] == "stopped", "what is unknown opens no gate"


@pytest.mark.parametrize("policy", ["stop", "ask", "extend", "insert"])
def test_every_policy_but_warn_holds_the_student_first(policy: Any) -> None:
    assert judge(student(0.1), Gate(min_parent_retention=0.5, policy=policy))[0] == "stopped"
    assert judge(student(0.1), Gate(min_parent_retention=0.5, policy="warn"))[0] == "warned"


def test_more_teaching_does_not_make_a_student_smaller() -> None:
    gate = Gate(min_parent_retention=0.9, max_parameters=50_000)
    assert not curable(student(parameters=50_001), gate)
    assert curable(student(parameters=50_000), gate)
