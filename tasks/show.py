"""How Prefect shows what our store decided: a reused result is a run in the state `Cached`."""

from __future__ import annotations

from prefect.states import Completed, State

from tasks.records import StageRecord


def shown(record: StageRecord) -> StageRecord | State[StageRecord]:
    """What a task returns: the record, or a Cached state that carries it."""
    if not record.reused:
        return record
    return Completed(name="Cached", message=f"reused {record.fingerprint[:12]} of {record.reused_from}", data=record)


def unwrap(state: State[StageRecord]) -> StageRecord:
    """The record inside a task's state; raises what the task raised."""
    result = state.result()
    assert isinstance(result, StageRecord)
    return result
