"""The figures and the verdict of a search in words."""

from __future__ import annotations

from tasks.records.format import human, milliseconds, percent
from tasks.records.proof import Estimate
from tasks.records.routes.search import SearchRecord

AS_SHARE = ("accuracy", "macro_f1", "ece")


def scored(record: SearchRecord, value: float) -> str:
    """A score in words: `95.2 %`, or `2.123`."""
    return percent(value) if record.metric in AS_SHARE else f"{value:.3f}"


def difference(record: SearchRecord, value: float) -> str:
    """A gain without its unit: points for shares."""
    return f"{100 * value:+.2f}" if record.metric in AS_SHARE else f"{value:+.3f}"


def unit(record: SearchRecord) -> str:
    """The unit of a gain."""
    return f"points of {record.metric}" if record.metric in AS_SHARE else record.metric


def second_words(record: SearchRecord, value: float) -> str:
    """The second objective in words."""
    return human(value) if record.against == "parameters" else f"{milliseconds(value)} ms"


def interval_words(record: SearchRecord, gain: Estimate) -> str:
    """The ends of a gain's interval; an end that the seeds are too few to bound is infinite."""
    low, high = (difference(record, end) if end is not None else none for end, none in ((gain.low, "-inf"), (gain.high, "inf")))
    return f"{low} to {high}"


def verdict(record: SearchRecord) -> str:
    """One sentence."""
    own, best = record.defaults, record.best
    full = sum(trial.state == "complete" for trial in record.trials)
    tried = f"{len(record.trials)} trials of {record.study}, {full} of them in full"
    if own is None or own.score is None:
        return "No result yet: the defaults are not trained."
    if best is None or best.score is None:
        return f"No settings were found that are better than the defaults' {scored(record, own.score)} {record.metric} ({tried})."
    words = f"Trial {best.number} is the best of {tried}: {scored(record, best.score)} {record.metric} on the validation split, "
    words += f"the defaults {scored(record, own.score)}"
    found = record.confirmation
    if found is None:
        return f"{words}; not confirmed on fresh seeds."
    gain = found.gain
    spread = f"{difference(record, gain.mean)} {unit(record)} ({interval_words(record, gain)})"
    on = f"on {len(found.seeds)} fresh seeds and the test split"
    ends = {
        "first better": f"It is better than the defaults {on}: {spread}.",
        "second better": f"It is worse than the defaults {on}: {spread}. Keep the defaults.",
        "equivalent": f"It is equivalent to the defaults {on}: {spread}.",
        "undecided": f"Whether it is better than the defaults is undecided {on}: {spread}.",
    }
    return f"{words}. {ends[found.outcome]}"
