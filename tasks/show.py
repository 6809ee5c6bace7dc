"""How Prefect shows what our store decided: a reused result is a run in the state `Cached`."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.records import StageRecord

R = TypeVar("R")


def shown(record: StageRecord) -> StageRecord | State[StageRecord]:
    """What a task returns: the record, or a Cached state that carries it."""
    if not record.reused:
        return record
    return Completed(name="Cached", message=f"reused {record.fingerprint[:12]} of {record.reused_from}", data=record)


def unwrap(state: State[Any], kind: type[R]) -> R:
    """The record inside a task's or a stage's state; raises what it raised."""
    result = state.result()
    assert isinstance(result, kind)
    return result
