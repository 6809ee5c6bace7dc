"""False alarms and detections of `ladder monitor` in simulated sequences of windows.

    python -m benchmarks.monitoring [SEQUENCES]

Rows are drawn, and the windows are judged by the code that judges real ones (tasks/monitoring/decide.py) at its default settings. A
champion of accuracy 0.9; a drop of 4 points (relative 4.4 %) begins at the 11th of 50 windows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from conf.schema.shipping.monitoring import Monitoring
from models.monitoring.drift import numbers_shift
from tasks.monitoring.decide import Values, judge, yardsticks
from tasks.monitoring.shifts import shift_figures
from tasks.records.monitoring import ShiftFigures, Signal, WindowEntry, WindowReport

SETTINGS = Monitoring()
WINDOWS, BEGINS = 50, 11
ACCURACY, DROP = 0.9, 0.04
FEATURES = 6
Draw = Callable[[np.random.Generator, int, float], dict[Signal, np.ndarray]]


class Found(NamedTuple):
    """Of one sequence the first window, if any, with a trigger, with the advice to watch, and with a shift."""

    trigger: int | None
    watch: int | None
    shift: int | None


def labelled(rng: np.random.Generator, rows: int, mean: float) -> dict[Signal, np.ndarray]:
    """Labels of all rows."""
    return {"quality": coins(rng, rows, mean)}


def shadowed(rng: np.random.Generator, rows: int, mean: float) -> dict[Signal, np.ndarray]:
    """No labels, but the root teacher's answers; agreement is as high as accuracy, and drops as it."""
    return {"agreement": coins(rng, rows, mean)}


def by_confidence(rng: np.random.Generator, rows: int, mean: float) -> dict[Signal, np.ndarray]:
    """No labels: calibrated confidences of inputs that become harder."""
    return {"estimate": rng.beta(9 * mean / 0.9, 9 * (1 - mean) / 0.9, rows)}


def concept(rng: np.random.Generator, rows: int, mean: float) -> dict[Signal, np.ndarray]:
    """No labels: confidences of the same inputs, whose right answers have changed."""
    return by_confidence(rng, rows, ACCURACY)


def coins(rng: np.random.Generator, rows: int, mean: float) -> np.ndarray:
    """Values 0 and 1 of a mean, (rows,)."""
    return (rng.random(rows) < mean).astype(np.float64)


def play(seed: int, draw: Draw, rows: int, reference: int, drop: float, begins: int, features: int = 0) -> Found:
    """One sequence of windows."""
    rng = np.random.default_rng(seed)
    measures = yardsticks(Values(draw(rng, reference, ACCURACY)), SETTINGS, "accuracy")
    known = [rng.normal(size=reference).tolist() for _ in range(features)]
    entries: list[WindowEntry] = []
    for number in range(1, WINDOWS + 1):
        mean = ACCURACY - (drop if number >= begins else 0.0)
        shifts = shift_figures(
            [(f"f{i}", None, numbers_shift(each, rng.normal(size=rows).tolist())) for i, each in enumerate(known)], 0.05, 0.0
        )
        entries.append(judge(_draft(number, rows, shifts), Values(draw(rng, rows, mean)), measures, SETTINGS, entries))
        if entries[-1].report.trigger:
            break
    reports = [entry.report for entry in entries]
    return Found(
        next((report.number for report in reports if report.trigger), None),
        next((report.number for report in reports if report.diagnosis == "watch"), None),
        next((report.number for report in reports if report.changed), None),
    )


def _draft(number: int, rows: int, shifts: tuple[ShiftFigures, ...]) -> WindowReport:
    return WindowReport(
        name="simulated",
        version="simulated/1",
        weights_sha256="",
        workload="sequence-classification",
        metric="accuracy",
        window=f"w{number}",
        content="",
        looked="2026-01-01T00:00:00+00:00",
        number=number,
        rows=rows,
        shifts=shifts,
        drop=SETTINGS.drop,
    )


def cases() -> Iterator[tuple[str, Draw, int, int]]:
    """Name, signal, rows of a window, rows of the reference."""
    for reference in (1000, 2000, 5000):
        yield f"labels, reference {reference:,}", labelled, 1500, reference
    yield "1,500 labels in all, reference 5,000", labelled, 30, 5000
    yield "root teacher on 100 rows, reference 5,000", shadowed, 100, 5000
    yield "root teacher on 1,000 rows, reference 5,000", shadowed, 1000, 5000
    yield "confidence, harder inputs, reference 5,000", by_confidence, 1500, 5000
    yield "confidence, changed answers, reference 5,000", concept, 1500, 5000


def counted(found: Sequence[Found], begins: int) -> str:
    """Triggers after the drop has begun, those of advice to watch, and the median delay."""
    triggers = [each.trigger - begins + 1 for each in found if each.trigger is not None and each.trigger >= begins]
    watched = sum(each.watch is not None and each.watch >= begins for each in found)
    delay = f"{np.median(triggers):.0f}" if triggers else "-"
    return f"{len(triggers):>8}{delay:>8}{watched:>8}"


def main(sequences: int) -> None:
    """Print a line for each case."""
    print(f"{sequences} sequences of {WINDOWS} windows; alpha {SETTINGS.alpha}, drop {SETTINGS.drop}, k {SETTINGS.k} of {SETTINGS.n}\n")
    print(f"{'':46}{'false':>7}{'':>8}{'found':>8}{'delay':>8}{'watch':>8}{'seconds':>9}")
    for name, draw, rows, reference in cases():
        began = time.process_time()
        calm = [play(seed, draw, rows, reference, 0.0, WINDOWS + 1) for seed in range(sequences)]
        worse = [play(1000 + seed, draw, rows, reference, DROP, BEGINS) for seed in range(sequences)]
        alarms, advice = sum(each.trigger is not None for each in calm), sum(each.watch is not None for each in calm)
        print(f"{name:46}{alarms:>7}{f'({advice})':>8}{counted(worse, BEGINS)}{time.process_time() - began:>9.0f}", flush=True)
    shifted = [play(seed, labelled, 300, 2000, 0.0, WINDOWS + 1, FEATURES) for seed in range(sequences)]
    alarms = sum(each.shift is not None for each in shifted)
    print(f"\nshifts of {FEATURES} features without one, 300 rows a window, reference 2,000, PSI of at least {SETTINGS.psi}:")
    print(f"{alarms} of {sequences} sequences")
    print("false: triggers without a drop (in brackets: the advice to watch); found: triggers after a drop; delay: windows, median")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
