"""The decision on one window: evidence for a drop, diagnosis, trigger.

Pure arithmetic on the values of a window's rows, of the reference and of the windows before; the simulations of benchmarks/monitoring.py
run this code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.schema.shipping.monitoring import Monitoring
from models.monitoring.betting import Capital, Floats, no_capital
from models.monitoring.drop import DROPS, Kind, Yardstick, bound_of, is_proven, look_at, needed_rows, yardstick
from models.monitoring.votes import passes, vote_level
from tasks.records.format import percent
from tasks.records.monitoring import Diagnosis, Signal, SignalFigures, Track, WindowEntry, WindowReport

# Signals of a trigger, with their parts of the permitted error: where there are labels, they say most.
PARTS: dict[Signal, float] = {"quality": 0.7, "agreement": 0.3}
TRIGGERS: tuple[Signal, ...] = ("quality", "agreement")
NAMES: dict[Signal, str] = {
    "quality": "quality",
    "agreement": "agreement with the root teacher",
    "estimate": "accuracy estimated by confidence",
    "teacher": "the root teacher's own quality",
}


class Values(NamedTuple):
    """Values of the rows of a window, or of the reference, for each signal that there is.

    Attributes:
        rows: Signal -> (n,); of classifiers in [0, 1], of language models' quality and teacher in bits per byte.
    """

    rows: Mapping[Signal, NDArray[np.float64]]

    def of(self, signal: Signal) -> NDArray[np.float64]:
        """The values of a signal; empty where there are none."""
        return np.asarray(self.rows.get(signal, ()), dtype=np.float64)


def yardsticks(reference: Values, settings: Monitoring, metric: str) -> dict[Signal, Yardstick]:
    """Yardstick of each signal that has reference values.

    Args:
        reference: Values at promotion.
        settings: The permitted error.
        metric: `accuracy`, or `bits_per_byte`, of which less is better.
    """
    found: dict[Signal, Yardstick] = {}
    for signal in NAMES:
        values = reference.of(signal)
        if len(values):
            loss = metric == "bits_per_byte" and signal in ("quality", "teacher")
            kind: Kind = "loss" if loss else "share"
            # A text of more than twice the worst of the reference counts as twice that.
            scale = 2 * float(values.max()) if loss else 1.0
            found[signal] = yardstick(values, settings.alpha * PARTS.get(signal, 1.0), kind, scale)
    return found


def judge(
    draft: WindowReport, values: Values, measures: Mapping[Signal, Yardstick], settings: Monitoring, before: Sequence[WindowEntry]
) -> WindowEntry:
    """Judge a window after those before it.

    Args:
        draft: Its report so far: rows, labels and shifts.
        values: Of its rows.
        measures: Of `yardsticks`.
        settings: The drop, the votes and the cool-down.
        before: Windows of the same version that were counted, in the order of their looks.
    """
    tracks = dict(before[-1].tracks) if before else {}
    signals: dict[str, SignalFigures] = {}
    proven: dict[Signal, bool] = {}
    for signal, measure in measures.items():
        capital, rows = _capital(tracks.get(signal), measure)
        own = values.of(signal)
        capital = look_at(capital, measure, own)
        tracks[signal] = _track(capital, measure, rows + len(own))
        proven[signal] = bool(is_proven(capital, measure, settings.drop))
        if len(own):
            signals[signal] = _figures(signal, measure, own, capital, rows + len(own), draft.metric, settings.drop, proven[signal])
    reports = [*(entry.report for entry in before)]
    voted = any(_votes(signals.get(signal), settings.drop) for signal in TRIGGERS)
    shift_p = min((shift.p for shift in draft.shifts if shift.psi >= settings.psi), default=1.0)
    changed = _changed([*(report.shift_p for report in reports), shift_p], measures, draft.rows, settings)
    now = draft.model_copy(update={"signals": signals, "voted": voted, "shift_p": shift_p, "changed": changed})
    history = [*reports, now]
    dropped: list[Signal] = [signal for signal in TRIGGERS if proven.get(signal) and _agreed(history, signal, settings)]
    cause = _cause(history, dropped, settings) if dropped else None
    diagnosis, why = _diagnose(history, dropped, proven, cause, measures, settings)
    cooled = not any(report.trigger for report in reports[-settings.cool_down :]) if settings.cool_down else True
    trigger = cause is not None and cooled
    if cause is not None and not cooled:
        why += " A trigger came less than the cool-down before."
    update = {"diagnosis": diagnosis, "why": why, "trigger": trigger, "cause": cause}
    return WindowEntry(report=now.model_copy(update=update), tracks=tracks)


def _capital(track: Track | None, measure: Yardstick) -> tuple[Capital, int]:
    """The capital of a signal's bets, and the values so far; anew where the reference or the permitted error is another."""
    if track is None or track.basis != _basis(measure):
        return no_capital(len(DROPS)), 0
    logs = np.array([[-np.inf if log is None else log for log in row] for row in track.logs])
    return Capital(logs, track.looks), track.rows


def _track(capital: Capital, measure: Yardstick, rows: int) -> Track:
    logs: Any = [[None if math.isinf(log) else round(float(log), 6) for log in row] for row in capital.logs]
    return Track(basis=_basis(measure), logs=logs, looks=capital.looks, rows=rows)


def _basis(measure: Yardstick) -> str:
    return hashlib.sha256(repr(tuple(measure)).encode()).hexdigest()[:16]


def _figures(
    signal: Signal, measure: Yardstick, own: Floats, capital: Capital, total: int, metric: str, drop: float, proven: bool
) -> SignalFigures:
    x = measure.scaled(own)
    mean, sd = float(x.mean()), float(x.std())
    low, high = measure.interval(mean, sd, len(x))
    needed = None
    if not proven:
        assumed = mean if measure.drop_of(mean) > drop else _mean_at(measure, 2 * drop)
        whole = needed_rows(measure, assumed, drop, max(capital.looks, 1))
        needed = None if whole is None else max(whole - total, 0)
    return SignalFigures(
        signal=signal,
        unit=metric if signal in ("quality", "teacher") else "share",
        rows=len(x),
        value=mean * measure.scale,
        sd=sd * measure.scale,
        reference=measure.mean * measure.scale,
        reference_rows=measure.rows,
        drop=measure.drop_of(mean),
        low=low,
        high=high,
        proven=float(bound_of(capital, measure)),
        total=total,
        needed=needed,
    )


def _mean_at(measure: Yardstick, drop: float) -> float:
    return measure.mean * (1 + drop if measure.kind == "loss" else 1 - drop)


def _votes(figures: SignalFigures | None, drop: float) -> bool:
    return figures is not None and figures.drop > drop


def _agreed(history: Sequence[WindowReport], signal: Signal, settings: Monitoring) -> bool:
    """Whether k of the last n windows with this signal show the drop themselves."""
    shown = [report.signals[signal] for report in history if signal in report.signals][-settings.n :]
    return sum(_votes(figures, settings.drop) for figures in shown) >= min(settings.k, settings.n)


def _changed(p: list[float], measures: Mapping[Signal, Yardstick], rows: int, settings: Monitoring) -> bool:
    """Whether k of n windows show a shift; the level is simulated for `horizon` windows."""
    reference = max((measure.rows for measure in measures.values()), default=1)
    correlation = round(rows / max(rows + reference, 1), 1)  # few different ones, as each is simulated
    return passes(p, settings.k, settings.n, vote_level(settings.k, settings.n, settings.horizon, settings.alpha, correlation))


def _cause(history: Sequence[WindowReport], dropped: Sequence[Signal], settings: Monitoring) -> str:
    """Version and the first window of the drop; the cause of the window before, where it had one.

    The drop is taken to be as large as in the last k windows, and to begin where the windows from there on are likeliest to have it, those
    before it none: where the sum over them of rows (drop - half of it) is largest.
    """
    if len(history) > 1 and history[-2].cause is not None:
        return history[-2].cause
    shown = [(report, report.signals[dropped[0]]) for report in history if dropped[0] in report.signals]
    rows = np.array([figures.rows for _, figures in shown], dtype=np.float64)
    drops = np.array([figures.drop for _, figures in shown])
    whole = float(np.average(drops[-settings.k :], weights=rows[-settings.k :]))
    sums = np.cumsum((rows * (drops - whole / 2))[::-1])[::-1]
    first = shown[int(sums.argmax())][0]
    return f"{first.version}:{first.window}"


def _diagnose(
    history: Sequence[WindowReport],
    dropped: Sequence[Signal],
    proven: Mapping[Signal, bool],
    cause: str | None,
    measures: Mapping[Signal, Yardstick],
    settings: Monitoring,
) -> tuple[Diagnosis, str]:
    """Diagnosis, and the reason for it in a sentence."""
    now = history[-1]
    waiting: list[Signal] = [signal for signal in TRIGGERS if proven.get(signal)]
    if dropped:
        lead = _dropped(history, dropped[0])
        first = next(place for place, report in enumerate(history) if f"{report.version}:{report.window}" == cause)
        return _of_teacher(history[first:], lead, measures, settings)
    if waiting:
        return "watch", f"{_dropped(history, waiting[0])}; a trigger waits for {settings.k} of {settings.n} windows that show it."
    if proven.get("estimate") and not proven.get("quality") and "quality" not in now.signals:
        figures = _latest(history, "estimate")
        return "watch", (
            f"The accuracy estimated by confidence has dropped by {percent(figures.proven)} at least; labels, or the root teacher's "
            "answers, would tell whether the answers are worse."
        )
    if now.changed:
        shift = min((s for s in now.shifts if s.psi >= settings.psi), key=lambda s: (s.p, -s.psi))
        where = "" if shift.slice is None else f" in the slice {shift.slice}"
        return "watch", f"Inputs or answers have shifted: {shift.feature}{where}, PSI {shift.psi:.2f}; no drop of quality is proven."
    return _undecided(history, settings)


def _dropped(history: Sequence[WindowReport], signal: Signal) -> str:
    figures = _latest(history, signal)
    verb = "risen" if figures.unit == "bits_per_byte" else "dropped"
    return (
        f"{_subject(history[-1], signal)} has {verb} by {percent(figures.proven)} at least "
        f"(this window {_amount(figures, figures.value)}, at promotion {_amount(figures, figures.reference)})"
    )


def _of_teacher(
    history: Sequence[WindowReport], lead: str, measures: Mapping[Signal, Yardstick], settings: Monitoring
) -> tuple[Diagnosis, str]:
    """Whether the teacher has dropped, too, by the last n windows of the drop with its figures."""
    shown = [report.signals["teacher"] for report in history if "teacher" in report.signals][-settings.n :]
    if not shown or "teacher" not in measures:
        return "distil again", f"{lead}. The root teacher was not asked, so whether it still holds is not known."
    measure, rows = measures["teacher"], sum(figures.rows for figures in shown)
    mean = sum(figures.rows * figures.value for figures in shown) / rows / measure.scale
    spread = math.sqrt(sum(figures.rows * figures.sd**2 for figures in shown) / rows) / measure.scale
    drop, (low, _) = measure.drop_of(mean), measure.interval(mean, spread, rows)
    if drop > settings.drop and low > 0:
        return "refresh the teacher", f"{lead}, and so has the root teacher's quality, by {percent(drop)} on {rows:,} rows."
    return "distil again", f"{lead}, while the root teacher holds ({percent(-drop) if drop < 0 else percent(drop)} {_side(drop)})."


def _side(drop: float) -> str:
    return "less" if drop >= 0 else "more"


def _undecided(history: Sequence[WindowReport], settings: Monitoring) -> tuple[Diagnosis, str]:
    """No drop is proven: whether the rows so far would have shown one."""
    now = history[-1]
    shown: dict[Signal, SignalFigures] = {
        signal: _latest(history, signal) for signal in TRIGGERS if any(signal in report.signals for report in history)
    }
    if not shown:
        return "too few examples", "There are neither labels nor answers of the root teacher: no drop can be proven."
    signal, figures = next(iter(shown.items()))
    size = percent(max(2 * settings.drop, figures.drop if figures.drop > settings.drop else 0.0))
    if figures.needed is None and figures.reference_rows:
        return "too few examples", (
            f"The reference of {figures.reference_rows:,} rows is too small: no number of rows would prove a drop of {size} to be "
            f"above {percent(settings.drop)}."
        )
    if figures.needed:
        return "too few examples", (
            f"{_subject(now, signal)}: {figures.total:,} rows so far; {figures.needed:,} more would show a drop of {size} with certainty."
        )
    return (
        "nothing",
        f"{_subject(now, signal)} holds: {_amount(figures, figures.value)}, at promotion {_amount(figures, figures.reference)}.",
    )


def _latest(history: Sequence[WindowReport], signal: Signal) -> SignalFigures:
    return next(report.signals[signal] for report in reversed(history) if signal in report.signals)


def _subject(report: WindowReport, signal: Signal) -> str:
    name = report.metric.replace("bits_per_byte", "bits per byte") if signal == "quality" else NAMES[signal]
    return name[:1].upper() + name[1:]


def _amount(figures: SignalFigures, value: float) -> str:
    return f"{value:.3f}" if figures.unit == "bits_per_byte" else percent(value)
