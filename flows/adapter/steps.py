"""The Prefect adapter: plain functions of tasks as Prefect tasks with states.

A step is a plain function that returns a record. Called through this file it runs as a Prefect task: a result that was found in the store
ends as `Cached`, a cancelled run as `Cancelled`, one that Ctrl-C or SIGTERM has ended as `Cancelled` with the name Interrupted, and an
unreachable source is asked again. The caller gets the record or the error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import prefect.utilities.engine
from prefect import Task
from prefect._internal.control_listener import get_intent
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import RunType, State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from conf.errors import LadderError, RunCancelled, RunInterrupted, TransientError
from flows.adapter.arrows import nodes_of, note_result
from tasks.audit import audit
from tasks.bench import bench
from tasks.data import prepare
from tasks.evaluation import evaluate, gate
from tasks.export import run_exports
from tasks.generation import failures, generate
from tasks.registry import candidates
from tasks.report import publish
from tasks.report import record_model as recording
from tasks.runtime import cancellation
from tasks.runtime.logs import log, log_warnings
from tasks.store.cached import note_reuse, reuse_noted
from tasks.teachers import teacher
from tasks.training import student
from tasks.training.teaching import member_name

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = "Interrupted"
_returned: dict[str, Any] = {}  # by flow run: what flows returned whose state nobody has asked for yet
RETRIES, FIRST_PAUSE = 3, 8.0  # seconds, doubled each time: about a minute in all


def _should_retry(task: Any, run: Any, state: State[Any]) -> bool:
    error = state.data
    if isinstance(error, TransientError):
        log.warning("%s Trying again.", error)
    return isinstance(error, TransientError)


# For steps that read remote sources; a training is never retried, nor is anything deterministic.
RETRY: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(FIRST_PAUSE),
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": _should_retry,
}


def cancellable(function: Callable[P, R], is_flow: bool = True) -> Callable[P, R | State[Any]]:
    """Have a task or a flow, called for its state, end as Cancelled when the run was stopped in it, and as Failed at an expected error.

    The state has the error's sentence; Prefect logs it, and no traceback. A transient error is raised, for Prefect to try again. What a
    flow returns is remembered for `result_of`.
    """

    def ended(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        try:
            with cancellation.own_code():
                return function(*args, **kwargs)
        except RunCancelled as error:
            return cancelled_state(error)
        except KeyboardInterrupt:
            return cancelled_state(cancellation.stopped())
        except TransientError:
            raise
        except LadderError as error:
            return Failed(message=str(error), data=error)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        returned = ended(*args, **kwargs)
        if is_flow:
            _returned[str(flow_run.id)] = returned
        return returned

    # Prefect would look up the names of the annotations where `call` is defined; a return annotation it could not pickle for a runner.
    signature = inspect.signature(function, eval_str=True).replace(return_annotation=inspect.Signature.empty)
    setattr(call, "__signature__", signature)  # noqa: B010
    return call


def result_of(state: State[Any], raise_on_failure: bool = True) -> Any:
    """The result of a flow of this process, or its error.

    A server that took the end of a flow and answered too late is told of it again; its answer is then the state as it keeps it, without the
    result, and Prefect knows the result no more. What the flow returned serves in its place.
    """
    returned = _returned.pop(str(state.state_details.flow_run_id), None)
    if state.data is None and returned is not None:
        own = returned if isinstance(returned, State) else Completed(data=returned)
        state = own if own.type == state.type else state
    return state.result(raise_on_failure=raise_on_failure)


def cancelled_state(error: RunCancelled) -> State[Any]:
    """The state of a flow or a task that was stopped: by a person, or by Ctrl-C or SIGTERM."""
    return Cancelled(name=INTERRUPTED if isinstance(error, RunInterrupted) else "Cancelled", message=str(error), data=error)


def _on_sigterm(number: int, frame: object) -> None:
    """In place of Prefect's handler, which raises in the middle of the engine and so has it record a crash."""
    if get_intent() in ("reschedule", "relinquish"):  # a worker's supervisor decides what becomes of the run
        raise TerminationSignal(number)
    cancellation.on_signal(number, frame)


prefect.utilities.engine._prefect_sigterm_handler = _on_sigterm  # pyright: ignore[reportAttributeAccessIssue]


def _with_state(function: Callable[P, R]) -> Callable[P, R | State[R]]:
    """The function that Prefect runs, whose record comes in a Cached state where the store had the result."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | State[R]:
        note_reuse(None)
        record, message = function(*args, **kwargs), reuse_noted()
        return record if message is None else Completed(name="Cached", message=message, data=record)

    return call


def step(function: Callable[P, R], name: str, run_name: str | Callable[..., str], **options: Any) -> Callable[P, R]:
    """The function as a Prefect task of the flow under way, with the same arguments, result and errors.

    Whether anything is computed is decided by our store, so Prefect neither caches nor persists the task's result.

    Args:
        function: A step.
        name: Of the task.
        run_name: Of a run of it: with the arguments in braces, or a function of the arguments by name.
        options: More of Prefect's, such as retries.
    """
    body = cancellable(_with_state(function), is_flow=False)
    task = Task(body, name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False, **options)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        log_warnings()  # in a served run, too, which no command line has prepared
        # Quoted: Prefect need not search records within records for the results of other tasks; flows/adapter/arrows.py knows them.
        named = {key: quote(value) for key, value in kwargs.items()}
        with cancellation.engine_code():
            state = task(*map(quote, args), return_state=True, wait_for=nodes_of(*args, *kwargs.values()), **named)
        result: Any = state.result()  # pyright: ignore[reportAttributeAccessIssue]
        note_result(result, state, RunType.TASK_RUN)  # pyright: ignore[reportArgumentType]
        return result

    return call


def _student_run_name(parameters: dict[str, Any]) -> str:
    return f"{member_name(parameters['stage'].name, parameters.get('member', 0))} <- {parameters['lineage'][-1].name}"


prepare_data = step(prepare.prepare_data, "data", "data: {ladder.data.source}", **RETRY)
read_prompts = step(generate.read_prompts, "prompts", "prompts: {inputs.ladder.name}")
judge_student = step(failures.judge_student, "failures", "failures of {student.name}")
generate_data = step(generate.generate_data, "generate", "generate: {inputs.ladder.name}")
prepare_teacher = step(teacher.prepare_teacher, "teacher", "teacher: {inputs.ladder.teacher.source}", **RETRY)
train_student = step(student.train_student, "student", _student_run_name)
choose_teacher = step(student.choose_teacher, "bake-off", "teachers of {stage.name}")
evaluate_model = step(evaluate.evaluate_model, "evaluate", "evaluate {record.name}")
bench_model = step(bench.bench_model, "bench", "bench {record.name}")
train_control = step(audit.train_control, "control", "{stage.name} without a teacher")
audit_model = step(audit.audit_model, "audit", "audit {record.name}")
decide = step(gate.decide, "gate", "gate: {record.name}")
record_model = step(recording.record_model, "record", "record {record.name}")
export_student = step(run_exports.export_student, "export", "export {exporter.record.name} as {export.name}")
register_version = step(candidates.register_version, "register", "register")
publish_report = step(publish.publish_report, "report", "report")
