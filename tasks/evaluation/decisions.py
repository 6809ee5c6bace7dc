"""Keep the decisions of people about students in the store.

A rerun with the same weights and the same gate does not ask again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from conf.schema.stage.stage import Stage
from tasks.records.base import Record
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.cached import find_stored
from tasks.store.fingerprint import fingerprint

OLD = {
    "min_parent_retention",
    "min_root_retention",
    "max_parameters",
}  # named in every decision, the first ones included
BOUNDS = {*OLD, "min_also_retention", "max_task_drop", "max_slice_amplification", "max_confidently_wrong_excess", "max_ece", "audited"}
Choice = Literal["approve", "reject", "train longer"]


class Decision(Record):
    """An answer to a gate's question.

    Attributes:
        choice: Action on the student.
        steps: How long to train on.
        by: Who has decided, in their own words; `nobody` where the time to answer ran out.
        note: Why.
        moment: When, ISO 8601 in UTC.
        run: The run that asked.
    """

    choice: Choice
    steps: int | None = None
    by: str = ""
    note: str = ""
    moment: str
    run: str

    @property
    def words(self) -> str:
        """The decision in a sentence for logs, reports and MLflow."""
        verb = {"approve": "approved", "reject": "rejected", "train longer": f"trained on for {self.steps} steps"}[self.choice]
        who = f" by {self.by}" if self.by else ""
        return f"{verb}{who} on {self.moment}{f': {self.note}' if self.note else ''}"


def question(student: StageRecord, stage: Stage) -> dict[str, Any]:
    """Identity of a decision: the student's weights, the reasons of its gate, the gate's bounds."""
    return {
        "kind": "decision",
        "weights": student.weights_sha256,
        "reasons": list(student.gate_reasons),
        "gate": {name: value for name, value in stage.gate.model_dump(mode="json", include=BOUNDS).items() if name in OLD or value},
    }


def remembered(student: StageRecord, stage: Stage, context: Context) -> Decision | None:
    """An earlier decision on the same question; a rejection is not kept, so that a rerun asks again."""
    found = find_stored(store_of(context), "decision", fingerprint(question(student, stage)), _read)
    return _read(found.folder) if found else None


def _read(folder: Path) -> Decision:
    return Decision.model_validate_json((folder / "decision.json").read_bytes())


def remember(decision: Decision, student: StageRecord, stage: Stage, context: Context) -> None:
    """Keep a decision, in place of an older one on the same question: `find_or_compute` would keep the older.

    Raises:
        StoreError: The disk is full.
    """
    store, identity = store_of(context), question(student, stage)
    key = fingerprint(identity)

    def write(folder: Path) -> None:
        (folder / "decision.json").write_text(json.dumps(decision.model_dump(mode="json"), indent=1), encoding="utf-8")

    with store.lock(key):
        store.publish("decision", stage.name, identity, key, context.made, write)
