"""How Prefect shows what our store decided, and what a person did: a reused result is `Cached`, a cancelled run `Cancelled`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from conf.errors import RunCancelled
from tasks.records import StageRecord

P = ParamSpec("P")
R = TypeVar("R")


def shown(record: StageRecord) -> StageRecord | State[StageRecord]:
    """What a task returns: the record, or a Cached state that carries it."""
    if not record.reused:
        return record
    return Completed(name="Cached", message=f"reused {record.fingerprint[:12]} of {record.reused_from}", data=record)


def cancellable(function: Callable[P, R]) -> Callable[P, R | State[Any]]:
    """Have a task or a flow, called for its state, end as Cancelled and not as Failed when the run was cancelled in it."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        try:
            return function(*args, **kwargs)
        except RunCancelled as error:
            return Cancelled(message=str(error), data=error)

    # Prefect would look for the names in the annotations where `call` is defined; what is returned it could not pickle for a runner.
    signature = inspect.signature(function, eval_str=True).replace(return_annotation=inspect.Signature.empty)
    setattr(call, "__signature__", signature)  # noqa: B010
    return call


def unwrap(state: State[Any], kind: type[R]) -> R:
    """The record inside a task's or a stage's state; raises what it raised."""
    result = state.result()
    assert isinstance(result, kind)
    return result
