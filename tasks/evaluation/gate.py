"""Check a student against the bounds of its gate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from conf.schema.measures.audit import Bound
from conf.schema.stage.gate import Gate
from conf.schema.stage.stage import Stage
from tasks.evaluation.harness_tasks import task_drops
from tasks.records.run import StageRecord, Verdict
from tasks.runtime.logs import log

FEW_TASK_EXAMPLES = 30  # of a task, below which it opens no gate


def decide(record: StageRecord, stage: Stage, lineage: Sequence[StageRecord], thresholds: tuple[float, ...]) -> StageRecord:
    """Pass, warn or stop."""
    verdict, reasons = judge(record, stage.gate, lineage, thresholds)
    for reason in reasons:
        log.warning("%s", reason)
    return record.model_copy(update={"gate": verdict, "gate_reasons": reasons})


def judge(
    record: StageRecord, gate: Gate, lineage: Sequence[StageRecord] = (), thresholds: tuple[float, ...] = ()
) -> tuple[Verdict | None, tuple[str, ...]]:
    """Compare a student's figures with the bounds of its gate.

    Args:
        record: The student.
        gate: The thresholds.
        lineage: Its ancestors, root first. The parent's share is asked of the last one that no gate has inserted: an assistant that
            learned little must not make a student look good.
        thresholds: Of the audit, at all of which confidently wrong answers are asked about.

    Returns:
        The verdict, None where the gate asks nothing, and for each requirement that was missed a sentence with its figures. Below a poor
        root, which the settings let teach, no student passes without that: it is warned of where nothing was missed. A student
        that is stopped may yet be extended, taught through an assistant, or approved: see flows/gate_policies.py.
    """
    audited = gate.audit_bounds(thresholds)
    bounds = (gate.min_parent_retention, gate.min_root_retention, gate.min_also_retention, gate.max_task_drop, gate.max_parameters)
    if all(bound is None for bound in bounds) and not audited:
        return None, ()
    reasons = []
    through = [model for model in reversed(lineage) if model.inserted]
    for name, least, reached in (
        ("parent", gate.min_parent_retention, _product([model.retention.parent for model in (record, *through)])),
        ("root", gate.min_root_retention, record.retention.root),
    ):
        # A figure that is missing or not a number must not open a gate.
        if least is not None and not (reached is not None and reached >= least):
            shown = "unknown" if reached is None else f"{reached:.3f}"
            reasons.append(
                f"{record.name} keeps {shown} of the {name}{_via(through, name)}; gate.min_{name}_retention asks at least {least:g}"
            )
    if gate.max_parameters is not None and record.parameters > gate.max_parameters:
        reasons.append(f"{record.name} has {record.parameters:,} parameters; gate.max_parameters allows at most {gate.max_parameters:,}")
    if gate.min_also_retention is not None:
        reasons += _missed_elsewhere(record, gate.min_also_retention)
    if gate.max_task_drop is not None:
        reasons += _dropped(record, lineage, gate.max_task_drop)
    reasons += [reason for bound in audited if (reason := _missed(record, bound))]
    notes = [f"the root {lineage[0].name} is poor: {lineage[0].poor}"] if lineage and lineage[0].poor else []
    if not reasons:
        return ("warned", tuple(notes)) if notes else ("passed", ())
    reasons += notes
    return ("warned" if gate.policy == "warn" else "stopped"), tuple(reasons)


def _missed_elsewhere(record: StageRecord, least: float) -> list[str]:
    """Why a student does not keep enough on further held-out data; too few examples never open a gate."""
    asks = f"gate.min_also_retention asks at least {least:g}"
    if not record.also:
        return [f"{record.name} was not judged on other data; {asks}"]
    reasons = []
    for name, found in record.also.items():
        reached = found.retention.root
        if found.few:
            reasons.append(
                f"{record.name}: too few examples in evaluation.also.{name} ({found.rows:,}); {asks}. Add data, or lower audit.min_count"
            )
        elif not (reached is not None and reached >= least):
            shown = "unknown" if reached is None else f"{reached:.3f}"
            reasons.append(f"{record.name} keeps {shown} of the root on {name}; {asks}")
    return reasons


def _dropped(record: StageRecord, lineage: Sequence[StageRecord], most: float) -> list[str]:
    """Why a student drops too far below the root in a task."""
    asks = f"gate.max_task_drop asks at most {most:g}"
    drops = task_drops(record, lineage[0]) if lineage else {}
    if not drops or len(drops) < len(record.tasks):
        return [f"{record.name} and the root were not judged by the same tasks; {asks}"]
    reasons = []
    for name, drop in drops.items():
        assert drop.value is not None
        if drop.rows < FEW_TASK_EXAMPLES:
            reasons.append(f"{record.name}: too few examples in task {name} ({drop.rows:,} of {FEW_TASK_EXAMPLES}); {asks}")
        elif (drop.value if drop.high is None else drop.high) > most:
            ends = "" if drop.high is None else f", at most {drop.high:.3g} with 97.5 % confidence"
            reasons.append(f"{record.name} drops by {drop.value:.3g} below the root in task {name}{ends}; {asks}")
    return reasons


def _missed(record: StageRecord, bound: Bound) -> str | None:
    """Why an audited figure does not lie within its bound with its whole interval; too few examples never open a gate."""
    audit = record.audit
    figure = audit.figures.get(bound.figure) if audit else None
    asks = " and ".join(f"{word} {value:g}" for word, value in (("at most", bound.most), ("at least", bound.least)) if value is not None)
    bound_text = f"gate.{bound.setting} asks {asks}"
    if audit is None or figure is None:
        return f"{record.name} has no {bound.figure}, which was not audited; {bound_text}"
    few = audit.few if bound.figure.endswith(".amplification") else ()
    if figure.value is None or few:
        names = f"{', '.join(few[:3])}{', ...' if len(few) > 3 else ''}"
        where = f" in {len(few)} slices ({names})" if few else f" ({figure.rows:,} rows)"
        return (
            f"{record.name}: too few examples for {bound.figure}{where}; {bound_text}. Raise evaluation.examples, or lower audit.min_count"
        )
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    if (bound.most is None or high <= bound.most) and (bound.least is None or low >= bound.least):
        return None
    return f"{record.name} has {bound.figure} {figure.value:.3g}, between {low:.3g} and {high:.3g}; {bound_text}"


def _product(retentions: Sequence[float | None]) -> float | None:
    """Retention is a ratio, of accuracies or of perplexities, so that along a line of teachers it multiplies."""
    present = [value for value in retentions if value is not None]
    return math.prod(present) if len(present) == len(retentions) else None


def _via(through: Sequence[StageRecord], name: str) -> str:
    return f" above {through[-1].name}" if through and name == "parent" else ""


def curable(record: StageRecord, gate: Gate) -> bool:
    """Whether more or better teaching can help: not where the student is too large."""
    return gate.max_parameters is None or record.parameters <= gate.max_parameters
