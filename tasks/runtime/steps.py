"""How Prefect shows what our store decided, and what a person did: a reused result is `Cached`, a cancelled run `Cancelled`.

Every task of a ladder is a `step`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed
from prefect.utilities.annotations import quote

from conf.errors import RunCancelled
from tasks.records.run import StageRecord

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


class Step(Task[P, R]):
    """A task whose arguments are values: Prefect does not search them, records within records, for the results of other tasks."""

    if not TYPE_CHECKING:  # the signature is the task's own

        def __call__(self, *args: Any, return_state: bool = False, **kwargs: Any) -> Any:
            """Run the task in the flow under way."""
            named = {key: quote(value) for key, value in kwargs.items()}
            return super().__call__(*map(quote, args), return_state=return_state, **named)


def step(name: str, run_name: str, **options: Any) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a task: whether it is computed is decided by our store, and what it returns is no result of Prefect's.

    Args:
        name: Of the task.
        run_name: Of a run of it, with the arguments in braces.
        options: More of Prefect's, such as retries.
    """
    return lambda function: Step(function, name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False, **options)


def unwrap(state: State[Any], kind: type[R]) -> R:
    """The record inside a task's or a stage's state; raises what it raised."""
    result = state.result()
    assert isinstance(result, kind)
    return result
