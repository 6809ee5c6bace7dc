"""The decision on a window: false alarms, detection, diagnosis, cause, cool-down."""

from __future__ import annotations

import numpy as np
import pytest

from conf.schema.shipping.monitoring import Monitoring
from tasks.monitoring.decide import Values, judge, yardsticks
from tasks.monitoring.shifts import shift_figures
from tasks.records.monitoring import Signal, WindowEntry, WindowReport

SETTINGS = Monitoring()


def coins(mean: float, rows: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(rows) < mean).astype(float)


def draft(number: int, rows: int, metric: str = "accuracy", **changes: object) -> WindowReport:
    fields = {"name": "tiny", "version": "tiny/1", "weights_sha256": "w", "workload": "sequence-classification", "content": str(number)}
    more = {"window": f"w{number}", "looked": "2026-01-01T00:00:00+00:00", "number": number, "rows": rows, "drop": SETTINGS.drop}
    return WindowReport.model_validate({**fields, **more, "metric": metric, **changes})


def play(
    windows: list[dict[Signal, np.ndarray]], reference: dict[Signal, np.ndarray], settings: Monitoring = SETTINGS, metric: str = "accuracy"
) -> list[WindowEntry]:
    """The entries of windows that come one after another."""
    measures, entries = yardsticks(Values(reference), settings, metric), []
    for number, values in enumerate(windows, 1):
        rows = max((len(each) for each in values.values()), default=0)
        entries.append(judge(draft(number, rows, metric), Values(values), measures, settings, entries))
    return entries


def test_few_false_alarms_and_most_drops_found_in_simulated_sequences() -> None:
    """The small version of benchmarks/monitoring.py: 20 sequences without drift, 20 with one of 4 points."""
    alarms, found, delays = 0, 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reference: dict[Signal, np.ndarray] = {"quality": coins(0.9, 5000, rng)}
        calm: list[dict[Signal, np.ndarray]] = [{"quality": coins(0.9, 1500, rng)} for _ in range(25)]
        alarms += any(entry.report.trigger for entry in play(calm, reference))
        worse: list[dict[Signal, np.ndarray]] = [{"quality": coins(0.86, 1500, rng)} for _ in range(20)]
        triggers = [entry.report.number for entry in play([*calm[:5], *worse], reference) if entry.report.trigger]
        found += bool(triggers)
        delays += [triggers[0] - 5] if triggers else []
    assert alarms <= 1
    assert found >= 18
    assert min(delays) >= 1


def test_one_cause_for_one_drop_and_a_cool_down_between_triggers() -> None:
    rng = np.random.default_rng(0)
    reference: dict[Signal, np.ndarray] = {"quality": coins(0.9, 5000, rng)}
    means = [0.9] * 4 + [0.6] * 9
    entries = play([{"quality": coins(mean, 500, rng)} for mean in means], reference)
    reports = [entry.report for entry in entries]
    triggered = [report.number for report in reports if report.trigger]
    assert triggered == [6, 12]  # two of three windows show it; then five without
    assert {report.cause for report in reports[5:]} == {"tiny/1:w5"}
    assert all(report.cause is None for report in reports[:5])
    assert reports[5].diagnosis == "distil again"
    assert reports[5].signals["quality"].proven >= 0.2


def test_a_single_bad_window_is_no_trigger() -> None:
    rng = np.random.default_rng(0)
    reference: dict[Signal, np.ndarray] = {"quality": coins(0.9, 5000, rng)}
    entries = play([{"quality": coins(mean, 800, rng)} for mean in (0.9, 0.9, 0.3, 0.9, 0.9, 0.9)], reference)
    assert entries[2].report.voted
    assert not any(entry.report.trigger for entry in entries)


@pytest.mark.parametrize(("teacher", "diagnosis"), [(0.95, "distil again"), (0.6, "refresh the teacher")])
def test_the_diagnosis_asks_whether_the_teacher_holds(teacher: float, diagnosis: str) -> None:
    rng = np.random.default_rng(0)
    reference: dict[Signal, np.ndarray] = {"quality": coins(0.9, 3000, rng), "teacher": coins(0.95, 3000, rng)}
    windows: list[dict[Signal, np.ndarray]] = [{"quality": coins(0.6, 400, rng), "teacher": coins(teacher, 100, rng)} for _ in range(3)]
    report = play(windows, reference)[-1].report
    assert report.diagnosis == diagnosis
    assert report.cause == "tiny/1:w1"
    assert "root teacher" in report.why


def test_without_labels_agreement_triggers_and_an_estimate_alone_is_to_watch() -> None:
    rng = np.random.default_rng(0)
    reference: dict[Signal, np.ndarray] = {
        "quality": coins(0.9, 3000, rng),
        "estimate": rng.beta(9, 1, 3000),
        "agreement": coins(0.93, 3000, rng),
    }
    shadowed = play([{"estimate": rng.beta(9, 1, 500), "agreement": coins(0.6, 100, rng)} for _ in range(4)], reference)[-1].report
    assert (shadowed.diagnosis, shadowed.cause) == ("distil again", "tiny/1:w1")
    alone = play([{"estimate": rng.beta(6, 4, 500)} for _ in range(4)], reference)[-1].report
    assert (alone.diagnosis, alone.trigger) == ("watch", False)
    assert alone.signals["estimate"].proven > 0.2


def test_bits_per_byte_need_no_labels() -> None:
    rng = np.random.default_rng(0)
    reference: dict[Signal, np.ndarray] = {"quality": rng.gamma(20, 0.1, 800)}
    calm = play([{"quality": rng.gamma(20, 0.1, 100)} for _ in range(6)], reference, metric="bits_per_byte")
    assert not any(entry.report.trigger for entry in calm)
    worse = play([{"quality": rng.gamma(20, 0.14, 100)} for _ in range(6)], reference, metric="bits_per_byte")
    figures = worse[-1].report.signals["quality"]
    assert any(entry.report.trigger for entry in worse)
    assert figures.value == pytest.approx(2.8, abs=0.2)
    assert figures.drop == pytest.approx(0.4, abs=0.1)


def test_too_few_examples_name_the_number_that_would_decide() -> None:
    rng = np.random.default_rng(0)
    large, small = coins(0.9, 20000, rng), coins(0.9, 60, rng)
    report = play([{"quality": coins(0.88, 40, rng)}], {"quality": large})[0].report
    assert report.diagnosis == "too few examples"
    assert report.signals["quality"].needed is not None
    assert f"{report.signals['quality'].needed:,} more" in report.why
    assert "reference of 60 rows is too small" in play([{"quality": coins(0.9, 40, rng)}], {"quality": small})[0].report.why
    assert "neither labels nor answers" in play([{}], {"quality": large})[0].report.why


def test_enough_rows_without_a_drop_are_nothing() -> None:
    rng = np.random.default_rng(0)
    entries = play([{"quality": coins(0.9, 2000, rng)} for _ in range(12)], {"quality": coins(0.9, 20000, rng)})
    assert entries[-1].report.diagnosis == "nothing"
    assert "holds" in entries[-1].report.why


def test_shifted_inputs_alone_are_to_watch() -> None:
    from models.monitoring.drift import numbers_shift

    rng = np.random.default_rng(0)
    measures = yardsticks(Values({"quality": coins(0.9, 2000, rng)}), SETTINGS, "accuracy")
    entries: list[WindowEntry] = []
    for number in range(1, 4):
        found = [("letters", None, numbers_shift(rng.normal(0, 1, 2000).tolist(), rng.normal(1, 1, 300).tolist()))]
        shifts = shift_figures(found, SETTINGS.alpha, SETTINGS.psi)
        entries.append(judge(draft(number, 300, shifts=shifts), Values({"quality": coins(0.9, 300, rng)}), measures, SETTINGS, entries))
    assert [entry.report.changed for entry in entries] == [False, True, True]
    assert entries[-1].report.diagnosis == "watch"
    assert "letters" in entries[-1].report.why


def test_another_reference_begins_anew() -> None:
    rng = np.random.default_rng(0)
    first = play([{"quality": coins(0.5, 500, rng)}] * 2, {"quality": coins(0.9, 5000, rng)})
    measures = yardsticks(Values({"quality": coins(0.5, 5000, rng)}), SETTINGS, "accuracy")
    entry = judge(draft(3, 500), Values({"quality": coins(0.5, 500, rng)}), measures, SETTINGS, first)
    assert entry.tracks["quality"].looks == 1
    assert entry.report.signals["quality"].total == 500
