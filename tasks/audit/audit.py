"""Find or compute the audit of a student: errors shared with its teachers.

An audit runs after the student's evaluation and before its gate; it is stored, so it is never computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from models.base.device import precision_of
from models.base.files import read_json
from models.base.numerics import NUMERICS
from tasks.evaluation.evaluate import SPLIT
from tasks.evaluation.harness_tasks import task_drops
from tasks.records.audit import AuditControl, AuditGroup, AuditRecord
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.store import Found
from tasks.training.find_or_train import find_or_train
from tasks.training.identity import untaught
from tasks.training.student import student_work
from tasks.training.work import Work

GROUPS_SHOWN = 24  # slices in a student's record; the store has them all
WORST_SHOWN = 12


def control_work(stage: Stage, student: StageRecord, parent: StageRecord, ladder: Ladder, data: DataRecord) -> Work:
    """The untaught control as a piece of work for `find_or_train`; as many steps as the student had, its extensions counted."""
    training = stage.training.model_copy(update={"steps": max(stage.training.steps, student.steps)})
    work = student_work(untaught(stage.model_copy(update={"training": training})), parent, ladder, data)
    return replace(work, name=f"{stage.name}-control")


def train_control(stage: Stage, student: StageRecord, parent: StageRecord, inputs: StageInputs) -> StageRecord:
    """Find the untaught control in the store, or train it. It is no rung of the ladder: MLflow has it with its student's figures."""
    context = inputs.context
    unrecorded = context.model_copy(update={"mlflow_run_id": None, "fresh": context.fresh and stage.name not in context.kept})
    return find_or_train(control_work(stage, student, parent, inputs.ladder, inputs.data), replace(inputs, context=unrecorded))


def audit_identity(models: dict[str, StageRecord], ladder: Ladder, data: DataRecord, precision: str) -> dict[str, Any]:
    """Identity of an audit: the weights compared, the data, the settings."""
    return {
        "kind": "audit",
        "numerics": NUMERICS,
        "intervals": "expanded percentiles",
        "weights": models["student"].weights_sha256,
        "others": {name: model.weights_sha256 for name, model in models.items() if name != "student"},
        "data": data.content_hash,
        "split": SPLIT,
        "examples": ladder.evaluation.examples,
        "settings": ladder.audit.model_dump(mode="json", exclude={"enabled", "control"}),
        "precision": precision,
    }


def audit_model(
    record: StageRecord,
    stage: Stage,
    lineage: Sequence[StageRecord],
    inputs: StageInputs,
    control: StageRecord | None = None,
) -> StageRecord:
    """Audit a student against the nearest of its ancestors and the root (`lineage`, root first), and perhaps its untaught control."""
    ladder, data, context = inputs.ladder, inputs.data, inputs.context
    precision = precision_of(ladder, stage.training)
    models = {"student": record, "parent": lineage[-1]}
    if lineage[0].weights_sha256 != lineage[-1].weights_sha256:
        models["root"] = lineage[0]
    if control is not None:
        models["control"] = control

    def compute() -> Write:
        from tasks.audit.compute import audited  # torch is imported where something is computed

        return lambda folder: audited(models, inputs, precision, SPLIT, folder)

    def check(folder: Path) -> AuditRecord:
        return read_audit(Found(folder, {"fingerprint": ""}), True, lineage, control)

    entry = Entry("audit", record.name, audit_identity(models, ladder, data, precision), check)
    found = find_or_compute(store_of(context), entry, context.made, compute, fresh=context.is_fresh(record.name))
    audit = read_audit(found, found.reused, lineage, control)
    drops = {
        f"{who}.drop_{name}": drop for who in ("parent", "root") for name, drop in task_drops(record, lineage[-(who == "parent")]).items()
    }
    audit = audit.model_copy(update={"figures": audit.figures | drops})
    for line in audit.flagged:
        log.warning("%s: %s", record.name, line)
    return record.model_copy(update={"audit": audit})


def read_audit(found: Found, reused: bool, lineage: Sequence[StageRecord], control: StageRecord | None) -> AuditRecord:
    """The record of an audit in the store."""
    raw = read_json(found.folder / "audit.json")
    groups = [AuditGroup(**group) for group in raw.pop("groups")]
    slices = [group for group in groups if group.kind == "slice"]
    shown_groups = [*sorted((g for g in slices if not g.few), key=_matters)[:GROUPS_SHOWN], *(g for g in groups if g.kind != "slice")]
    figures, same = raw["figures"], lineage[0].weights_sha256 == lineage[-1].weights_sha256
    if same:  # one model, asked once
        raw["figures"] = figures | {f"root.{k.removeprefix('parent.')}": v for k, v in figures.items() if k.startswith("parent.")}
    return AuditRecord(
        **{**raw, "worst": _some(raw["worst"])},
        folder=str(found.folder),
        fingerprint=found.manifest["fingerprint"],
        reused=reused,
        parent=lineage[-1].name,
        root=lineage[0].name,
        groups=tuple(shown_groups),
        flagged=tuple(_words(group, flag, lineage) for group in groups for flag in group.flags),
        few=tuple(group.name for group in slices if group.few),
        judged=sum(not group.few for group in groups),
        control=_control(control),
    )


def _words(group: AuditGroup, flag: str, lineage: Sequence[StageRecord]) -> str:
    teacher, _, what = flag.partition(".")
    name = (lineage[-1] if teacher == "parent" else lineage[0]).name
    finding = f"errors of {name} inherited" if what == "inherited" else f"the gap of {name} amplified"
    return f"{finding} in {'slice' if group.kind == 'slice' else 'tokens of class'} {group.name}"


def _matters(group: AuditGroup) -> tuple[bool, float, str]:
    """Flagged groups first, then by the student's gap."""
    gap = group.figures["gap"].value
    return not group.flags, -(gap or 0.0), group.name


def _some(worst: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few of each kind."""
    kinds = list(dict.fromkeys(example["kind"] for example in worst))
    each = WORST_SHOWN // max(len(kinds), 1)
    return [example for kind in kinds for example in [e for e in worst if e["kind"] == kind][:each]]


def _control(control: StageRecord | None) -> AuditControl | None:
    return control and AuditControl(**{name: getattr(control, name) for name in AuditControl.model_fields})
