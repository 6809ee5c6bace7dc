"""Find finished models by name, run and name, or fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

from conf.errors import UserError
from conf.home import Home
from conf.loading.introspect import suggest
from tasks.records.run import RunRecord, StageRecord, stage_record
from tasks.runtime.runs.run_registry import full_record, list_runs
from tasks.store.cached import find_stored
from tasks.store.store import Store

SHORTEST_FINGERPRINT = 8  # characters of a fingerprint


def named_models(home: Home, ladder: str, names: Sequence[str]) -> list[StageRecord]:
    """The records of finished models.

    Args:
        home: Where they are.
        ladder: Name of the ladder whose runs are searched for a bare name, the newest first.
        names: Each `NAME`, `RUN:NAME`, or the first 8 or more characters of a fingerprint.

    Raises:
        UserError: There is no such model, or its folder is gone or damaged.
    """
    runs = list_runs(home)
    return [_named(home, runs, ladder, name) for name in names]


def _named(home: Home, runs: Sequence[RunRecord], ladder: str, text: str) -> StageRecord:
    run, colon, name = text.rpartition(":")
    for record in runs:
        if (record.run != run) if colon else (record.ladder != ladder and len(text) < SHORTEST_FINGERPRINT):
            continue
        for model in _models(record):
            called = model.name == name and (bool(colon) or record.ladder == ladder)
            matched = len(text) >= SHORTEST_FINGERPRINT and model.fingerprint.startswith(text)
            if (called or matched) and _is_there(home, model):
                whole = full_record(home, record.run)
                made = next((each for each in _models(whole) if each.fingerprint == model.fingerprint), None) if whole else None
                if made is not None:
                    return made.model_copy(update={"reused": True, "reused_from": record.run})
    known = sorted({model.name for record in runs if record.ladder == ladder for model in _models(record)})
    remedy = f"{suggest(name, known)}`ladder show RUN` shows the models of a run. Run `ladder run {ladder}` first if there are none."
    raise UserError.about(
        "teachers", text, f"a finished model of {ladder} ({', '.join(known) or 'none yet'}), RUN:NAME, or a fingerprint", remedy
    )


def _models(record: RunRecord) -> list[StageRecord]:
    return [model for model in (record.teacher, *record.stages) if model]


def _is_there(home: Home, model: StageRecord) -> bool:
    return any(find_stored(Store(home), kind, model.fingerprint, stage_record) for kind in ("stage", "teacher"))
