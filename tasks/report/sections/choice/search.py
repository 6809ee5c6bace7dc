"""Section of the search: verdict, trials, importance, winner, front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from tasks.records.format import human
from tasks.records.routes.search import SearchedTrial, SearchRecord, read_search
from tasks.records.run import RunRecord
from tasks.report.plots.search import front_svg, history_svg, importance_svg
from tasks.report.plots.style import Layout
from tasks.search.words import difference, interval_words, scored, second_words, unit

SHOWN = 12  # trials, the best of those trained in full first
NOTE = (
    "Each rung is a training of its own with its whole, shorter schedule, on the seed of the ladder; trials are judged on the validation "
    "split. Winner and defaults are compared on other seeds and on the test split, which no trial has read: the interval needs no "
    "correction for the number of trials. Importance is fANOVA's share of the variance of all scores on the lowest rung."
)


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The search of the run; None where it was none."""
    search = read_search(record)
    if search is None:
        return None
    layouts: tuple[Layout, ...] = ("wide", "narrow")
    drawn: tuple[Callable[..., str | None], ...] = (front_svg, history_svg, importance_svg)
    plots = [(layout, Markup(picture)) for draw in drawn for layout in layouts if (picture := draw(search, layout)) is not None]
    tables = [_trials(search), *_confirmation(search), *_overrides(search), _space(search)]
    return {
        "heading": "Search",
        "verdict": search.verdict,
        "plots": plots,
        "tables": [table for table in tables if table["rows"]],
        "note": " ".join((*search.notes, NOTE)),
    }


def _trials(search: SearchRecord) -> dict[str, Any]:
    full = sorted((t for t in search.trials if t.score is not None), key=lambda t: t.score or 0.0, reverse=search.more_is_better)
    ended = sorted((t for t in search.trials if t.score is None and t.rungs), key=lambda t: -len(t.rungs))
    rows = [_row(search, trial) for trial in (*([search.defaults] if search.defaults else []), *(full + ended)[:SHOWN])]
    second = [search.against] if search.against != "none" else []
    return {
        "title": f"{len(search.trials)} trials of {search.study}",
        "headers": ["trial", search.metric, "steps", "parameters", *second, *search.space],
        "rows": rows,
    }


def _row(search: SearchRecord, trial: SearchedTrial) -> list[str]:
    name = "defaults" if trial.number < 0 else f"{trial.number}{', winner' * (trial.number == search.winner)}{', front' * trial.front}"
    second = [second_words(search, trial.second) if trial.second is not None else "-"] if search.against != "none" else []
    last = trial.rungs[-1]
    size = human(trial.parameters) if trial.parameters else "-"
    return [name, scored(search, last.score), f"{last.steps}", size, *second, *(f"{trial.values.get(key, '-')}" for key in search.space)]


def _confirmation(search: SearchRecord) -> list[dict[str, Any]]:
    found = search.confirmation
    if found is None:
        return []
    rows = [
        [f"{seed}", scored(search, winner), scored(search, own), difference(search, gain)]
        for seed, winner, own, gain in zip(found.seeds, found.winner, found.defaults, found.gains, strict=True)
    ]
    gain = found.gain
    rows.append(["mean", "", "", f"{difference(search, gain.mean)} ({interval_words(search, gain)})"])
    headers = ["seed", "winner", "defaults", f"gain, {unit(search)}"]
    return [{"title": "Fresh seeds, test split", "headers": headers, "rows": rows, "sums": 1}]


def _overrides(search: SearchRecord) -> list[dict[str, Any]]:
    rows = [list(text.partition("=")[::2]) for text in search.overrides]
    return [{"title": "Settings of the winner", "headers": ["setting", "value"], "rows": rows, "words": ("setting", "value")}]


def _space(search: SearchRecord) -> dict[str, Any]:
    rows = [[name, words] for name, words in search.space.items()]
    return {"title": "Space", "headers": ["setting", "values"], "rows": rows, "words": ("setting", "values")}
