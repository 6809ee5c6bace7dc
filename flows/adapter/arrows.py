"""Arrows on a run's page in Prefect, from each result to its users.

Prefect finds arrows by searching all arguments, record by record, which costs seconds in a ladder of many stages. Here each result gets a
node, an empty object that Prefect links to the state it came in, and a task is told the nodes of the models that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import RunType, State
from prefect.context import FlowRunContext
from prefect.utilities.engine import link_state_to_result

from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.runtime.stage_inputs import StageInputs


class _Node:
    """Stands for a result."""


_nodes: dict[UUID, dict[str, _Node]] = {}  # of each flow run of this process, by the result's fingerprint


def note_result(result: object, state: State[Any], kind: RunType) -> None:
    """Remember the state in which a task (`RunType.TASK_RUN`) or a stage of the flow under way has returned a result."""
    context, nodes = FlowRunContext.get(), _of_flow()
    if context is None or nodes is None:
        return
    if isinstance(result, DataRecord | StageRecord):
        node = nodes[result.fingerprint] = _Node()
        link_state_to_result(state.model_copy(update={"data": None}), node, kind)
    # Prefect has linked the record itself and all in it, down to its empty tuples, of which Python has one: false arrows.
    own = {id(node) for node in nodes.values()}
    for key in context.run_results.keys() - own:
        del context.run_results[key]


def nodes_of(*values: object) -> list[_Node]:
    """Nodes of the models among the arguments of a task, or of the data where no model is among them; none twice."""
    nodes = _of_flow()
    if not nodes:
        return []
    found = dict.fromkeys(nodes[model.fingerprint] for model in _models(values) if model.fingerprint in nodes)
    if not found:
        data = (value.data for value in values if isinstance(value, StageInputs))
        found = dict.fromkeys(nodes[each.fingerprint] for each in data if each.fingerprint in nodes)
    return list(found)


def _models(values: Iterable[object]) -> Iterator[StageRecord]:
    for value in values:
        if isinstance(value, StageRecord):
            yield value
        elif isinstance(value, RunRecord):
            yield from value.models[-1:]  # the one before hangs on the ones above it
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, StageRecord))


def _of_flow() -> dict[str, _Node] | None:
    context = FlowRunContext.get()
    return None if context is None or context.flow_run is None else _nodes.setdefault(context.flow_run.id, {})
