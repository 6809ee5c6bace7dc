"""Every figure of an audit, by hand, on ten rows."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models.evaluation.audit_figures import kappa, overall, reliability, shared
from models.evaluation.audit_rows import AuditRows, Predictions, TeacherComparison
from models.evaluation.audit_slices import SliceSettings, groups_of
from models.evaluation.bootstrap import Limits

LIMITS = Limits(2, 2)
TARGET = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
ROOT = [0, 0, 0, 1, 1, 1, 2, 2, 0, 0]  # wrong in rows 3, 6, 8, 9
PARENT = [0, 0, 1, 1, 1, 1, 2, 2, 2, 0]  # wrong in rows 2, 3, 6, 9
STUDENT = [0, 1, 1, 1, 1, 2, 2, 0, 2, 0]  # wrong in rows 1, 2, 3, 5, 6, 7, 9
CONTROL = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]  # wrong in row 3
SURE_STUDENT = [0.95, 0.55, 0.75, 0.95, 0.85, 0.45, 0.75, 0.55, 0.95, 0.95]
SURE_PARENT = [0.9, 0.9, 0.8, 0.6, 0.9, 0.9, 0.95, 0.9, 0.9, 0.95]


def answers(predicted: list[int], confidence: list[float] | None = None, nll: list[float] | None = None) -> Predictions:
    count = len(predicted)
    floats = [np.array(each, dtype=np.float32) for each in (confidence or [0.8] * count, nll or [1.0] * count, [0.25] * count)]
    return Predictions(np.array(predicted, dtype=np.int32), *floats)


def rows_of(with_control: bool = True, **more: Predictions) -> AuditRows:
    models = {"student": answers(STUDENT, SURE_STUDENT), "parent": answers(PARENT, SURE_PARENT), "root": answers(ROOT)}
    models |= ({"control": answers(CONTROL)} if with_control else {}) | more
    count = len(TARGET)
    half, divergences = np.full(count, 0.5, np.float32), {"parent": 0.5, "root": 0.75}
    beside = {name: TeacherComparison(np.full(count, kl, np.float32), half) for name, kl in divergences.items()}
    at, zero = np.arange(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    return AuditRows(np.array(TARGET, dtype=np.int32), zero, at, zero, at.astype(np.int64), models, beside)


FIGURES = {name: figure.value for name, figure in overall(rows_of(), (0.7, 0.9), Limits(1, 1), 200).items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accuracy", 0.3),
        ("nll", 1.0),
        ("brier", 0.25),
        # Bins of .45 (wrong), .55 (twice, wrong), .75 (twice, wrong), .85 (right), .95 (four, two right).
        ("ece", (0.45 + 2 * 0.55 + 2 * 0.75 + 0.15 + 4 * 0.45) / 10),
        ("parent.agreement", 0.7),
        ("root.agreement", 0.5),
        ("parent.kl", 0.5),
        ("root.kl", 0.75),
        ("parent.knowledge_loss", 3 / 6),  # rows 1, 5, 7 of 0, 1, 4, 5, 7, 8
        ("root.knowledge_loss", 4 / 6),
        ("parent.knowledge_gain", 0.0),
        ("root.knowledge_gain", 1 / 4),  # row 8
        ("parent.inheritance", 1.0),  # rows 2, 3, 6, 9
        ("root.inheritance", 3 / 4),  # rows 3, 6, 9
        ("parent.inheritance_excess", 1 - 1 / 4),  # the control shares row 3
        ("root.inheritance_excess", 3 / 4 - 1 / 4),
        ("parent.confident_inheritance_0.7", 1.0),  # rows 2, 6, 9: in 3 the parent is not so sure
        ("parent.confident_inheritance_0.9", 1 / 2),  # of 6 and 9
        ("parent.confident_inheritance_0.9_excess", 1 / 2),
        ("root.confident_inheritance_0.7", 3 / 4),
        ("root.confident_inheritance_0.7_excess", 3 / 4 - 1 / 4),
        ("provenance.root", 3 / 7),  # rows 3, 6, 9
        ("provenance.assistant", 1 / 7),  # row 2
        ("provenance.new", 3 / 7),
    ],
)
def test_by_hand(name: str, value: float) -> None:
    assert FIGURES[name] == pytest.approx(value, abs=1e-6)


def test_no_confident_error_of_a_teacher_is_too_few_and_not_zero() -> None:
    assert FIGURES["root.confident_inheritance_0.9"] is None
    figure = overall(rows_of(), (0.7,), Limits(5, 2), 100)["parent.inheritance"]
    assert (figure.value, figure.rows) == (None, 4)


def test_provenance_sums_to_one() -> None:
    assert sum(FIGURES[f"provenance.{who}"] or 0 for who in ("root", "assistant", "new")) == pytest.approx(1)


def test_without_a_control_there_is_no_excess() -> None:
    assert not [name for name in overall(rows_of(with_control=False), (0.7,), LIMITS, 100) if "excess" in name or "gap_closed" in name]


def test_kappa_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 4, 300), generator.integers(0, 4, 300)
    mixed = np.where(generator.random(300) < 0.6, one, other)
    assert kappa(answers(one.tolist()), answers(mixed.tolist())) == pytest.approx(cohen_kappa_score(one, mixed))
    assert kappa(answers([1, 1]), answers([1, 1])) is None  # nothing but one answer: agreement says nothing


def test_the_gap_closed() -> None:
    def closed(**losses: float) -> float | None:
        rows = rows_of(**{name: answers(STUDENT, nll=[loss] * 10) for name, loss in losses.items()})
        return overall(rows, (0.7,), Limits(1, 1), 100)["parent.gap_closed"].value

    assert closed(student=1.5, parent=1.0, control=2.0) == pytest.approx(0.5)
    assert closed(student=1.5, parent=2.0, control=2.0) is None  # the teacher is no better than the control


def test_calibration_to_the_teacher_is_against_its_probability() -> None:
    # The teacher gives each choice 0.5: bins .45, .55 (2), .75 (2), .85, .95 (4).
    wanted = (0.05 + 2 * 0.05 + 2 * 0.25 + 0.35 + 4 * 0.45) / 10
    assert FIGURES["parent.calibration"] == pytest.approx(wanted, abs=1e-6)


def test_the_reliability_diagram() -> None:
    bars = reliability(rows_of())
    shown = [(round(each.confidence, 2), each.accuracy, each.rows) for each in bars]
    assert shown == [(0.45, 0, 1), (0.55, 0, 2), (0.75, 0, 2), (0.85, 1, 1), (0.95, 0.5, 4)]
    assert sum(each.rows * abs(each.confidence - each.accuracy) for each in bars) / 10 == pytest.approx(FIGURES["ece"], abs=1e-6)


def test_shared_errors_need_both_to_be_sure() -> None:
    assert np.flatnonzero(shared(rows_of(), "student", "parent")).tolist() == [2, 3, 6, 9]
    assert np.flatnonzero(shared(rows_of(), "student", "parent", 0.9)).tolist() == [9]


# ---- slices ----


def asked(limits: Limits = LIMITS, errors: bool = True, smallest: float = 0.02) -> SliceSettings:
    return SliceSettings(limits, 500, smallest, 0.05, errors)


def test_gaps_and_amplification_by_hand() -> None:
    place = np.array([0] * 5 + [1] * 5)
    first, second = groups_of(rows_of(), {"slice": (place, ["a", "b"])}, asked())
    values = {name: figure.value for name, figure in first.figures.items()}
    assert values["student"] == pytest.approx(3 / 5)
    assert values["gap"] == pytest.approx(3 / 5 - 7 / 10)
    assert values["parent.gap"] == pytest.approx(2 / 5 - 4 / 10)
    assert values["parent.amplification"] == pytest.approx(-0.1 / 0.02)  # the parent's gap of 0 counts as the smallest that matters
    assert values["parent.inherited"] == pytest.approx(2 / 5 - 1 / 5)  # rows 2 and 3; the control has row 3 as well
    assert {name: figure.value for name, figure in second.figures.items()}["root.gap"] == pytest.approx(3 / 5 - 4 / 10)
    assert second.figures["root.amplification"].value == pytest.approx(0.1 / 0.2)


def test_language_models_are_judged_by_nll() -> None:
    losses = {"student": [2.0] * 5 + [1.0] * 5, "parent": [1.4] * 5 + [1.0] * 5}
    rows = rows_of(with_control=False, **{name: answers(STUDENT, nll=loss) for name, loss in losses.items()})
    group = groups_of(rows, {"slice": (np.array([0] * 5 + [1] * 5), ["a", "b"])}, asked(errors=False))[0]
    assert group.figures["gap"].value == pytest.approx(0.5)
    assert group.figures["parent.gap"].value == pytest.approx(0.2)
    assert group.figures["parent.amplification"].value == pytest.approx(2.5)


@pytest.mark.parametrize("members", [0, 1])
def test_a_slice_with_one_example_or_none_is_no_pass(members: int) -> None:
    place = np.array([1] * members + [0] * (10 - members))
    group = groups_of(rows_of(), {"slice": (place, ["most", "tiny"])}, asked())[1]
    assert (group.few, group.rows, group.figures, group.flags) == (True, members, {}, ())


def test_no_error_seen_in_a_slice_still_bounds_its_gap_from_above() -> None:
    right = answers(TARGET)
    group = groups_of(rows_of(student=right), {"slice": (np.array([0] * 5 + [1] * 5), ["a", "b"])}, asked())[0]
    high = group.figures["parent.amplification"].high
    assert high is not None
    assert high * 0.02 >= 1 - math.exp(math.log(0.025) / 5)


def many(shared_share: float, seed: int, slices: int = 20, size: int = 100) -> AuditRows:
    """Student and control err alike by chance, and in slice 0 the student, besides, as its teacher does."""
    generator, count = np.random.default_rng(seed), slices * size
    place = np.repeat(np.arange(slices), size)
    target, zero, at = np.zeros(count, np.int32), np.zeros(count, np.int32), np.arange(count, dtype=np.int32)

    def wrong(share: float) -> np.ndarray:
        return generator.random(count) < share

    parent = np.where((place == 0) | wrong(0.05), 1, 0)
    student = np.where(wrong(0.08), 1, 0)
    student[(place == 0) & wrong(shared_share)] = 1
    models = {"student": student, "parent": parent, "control": np.where(wrong(0.08), 1, 0)}
    flat = np.full(count, 0.1, np.float32)
    return AuditRows(
        target, place.astype(np.int32), at, zero, at.astype(np.int64),
        {name: answers(each.tolist()) for name, each in models.items()}, {"parent": TeacherComparison(flat, flat)},
    )  # fmt: skip


def flagged(rows: AuditRows) -> list[int]:
    groups = groups_of(rows, {"slice": (rows.slice, [str(i) for i in range(20)])}, asked(Limits()))
    return [int(group.name) for group in groups if "parent.inherited" in group.flags]


def test_the_one_slice_with_a_fault_is_flagged_and_chance_is_not() -> None:
    assert [flagged(many(0.4, seed)) for seed in range(10)].count([0]) >= 9
    assert [flagged(many(0.0, seed)) for seed in range(10)].count([]) >= 9
