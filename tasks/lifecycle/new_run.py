"""Name of a new run, and edits of its ladder since the last run."""

from __future__ import annotations

from conf.home import Home
from tasks.lifecycle.request import ResolvedRequest
from tasks.runtime.runs.run_lock import RunLock
from tasks.runtime.runs.run_registry import list_runs, new_name
from tasks.runtime.runs.run_settings import kept_settings
from tasks.store.fingerprint import changes

MOST = 8  # changed settings that a record keeps; `ladder compare` shows all


def new_lock(resolved: ResolvedRequest, home: Home) -> RunLock:
    """The lock of a new run, taken, under an unused name."""
    request = resolved.request
    while True:
        lock = RunLock(home, new_name(home, resolved.ladder.name, request.kind, request.name))
        if lock.take():
            return lock


def edited(resolved: ResolvedRequest, home: Home) -> tuple[str, ...]:
    """Settings that differ from those of the last run with the same parameters: the ladder's file was edited."""
    last = next((record for record in list_runs(home) if resolved.is_like(record)), None)
    before = last and kept_settings(last)
    if before is None or resolved.shortened or (last and last.budget):  # a budget's steps are measured anew each time
        return ()
    plain = resolved.ladder.model_dump(mode="json")
    now = {**plain, "stages": {stage["name"]: stage for stage in plain["stages"]}}
    lines = changes({key: before.get(key, value) for key, value in now.items()}, now)  # settings that an earlier version lacked are no edit
    return tuple(lines[:MOST]) + ((f"and {len(lines) - MOST} more",) if len(lines) > MOST else ())
