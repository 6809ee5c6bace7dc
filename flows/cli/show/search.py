"""Text of a search: its trials, its winner, the command that runs it."""

from __future__ import annotations

import shlex
from typing import Any

from tasks.records.format import duration, human
from tasks.records.routes.search import SearchedTrial, SearchRecord
from tasks.records.run import RunRecord
from tasks.report.terminal import table_of, text_of
from tasks.search.words import scored, second_words

SHOWN = 5  # trials, the best first


def search_lines(search: SearchRecord, record: RunRecord) -> list[str]:
    """A search as people read it."""
    full = [trial for trial in search.trials if trial.score is not None]
    by_score = sorted(full, key=lambda trial: trial.score or 0.0, reverse=search.more_is_better)
    shown = (
        sorted((trial for trial in full if trial.front), key=lambda trial: trial.second or 0.0) if search.against != "none" else by_score
    )
    rows = [
        _row(search, trial)
        for trial in (*([search.defaults] if search.defaults else []), *shown[: None if search.against != "none" else SHOWN])
    ]
    names = list(search.space)
    headers = [
        "trial",
        search.metric,
        *([search.against] if search.against != "none" else ["params"]),
        *(name.rpartition(".")[2] for name in names),
    ]
    lines = [text_of(table_of(headers, rows, left=("trial",)), width=200).rstrip()] if rows else []
    pruned = sum(trial.state == "pruned" for trial in search.trials)
    spent = sum(rung.training for trial in search.trials for rung in trial.rungs)
    lines += [f"{len(search.trials)} trials, {len(full)} in full, {pruned} ended early; {duration(spent)} of training"]
    if search.importance:
        lines += ["importance: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in search.importance.items())]
    lines += ["", search.verdict, *search.notes]
    if search.file:
        lines += [f"to use it: {shlex.join(['ladder', 'run', record.source, f'@{search.file}'])}"]
    return lines


def _row(search: SearchRecord, trial: SearchedTrial) -> list[Any]:
    score = trial.rungs[-1].score if trial.rungs else 0.0
    second = human(trial.parameters or 0) if trial.second is None else second_words(search, trial.second)
    name = "defaults" if trial.number < 0 else f"{trial.number}{' (winner)' * (trial.number == search.winner)}"
    return [name, scored(search, score), second, *(_short(trial.values.get(key, "-")) for key in search.space)]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
