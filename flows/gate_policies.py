"""Policies of a gate that a student fails: extend, insert an assistant, ask."""

from __future__ import annotations

from pathlib import Path

from prefect import tags

from conf.schema.stage.gate import Gate
from conf.schema.stage.stage import Stage
from flows.approval import ask
from flows.stage import distill_stage
from tasks.evaluation.gate import curable
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import Extension, StageRecord
from tasks.report.record_model import record_decision
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs


def run_with_policy(stage: Stage, lineage: list[StageRecord], inputs: StageInputs, run: LadderRun) -> list[StageRecord]:
    """Make a stage's student, and apply its gate's policy where it fails the gate; always within the gate's bounds.

    Args:
        stage: The stage.
        lineage: Accepted models, root first; the last one teaches.
        inputs: Of all stages.
        run: The run under way.

    Returns:
        The models to add to the lineage: assistants, if any, then the student, whatever its verdict.
    """
    gate, rung = stage.gate, Rung(lineage, inputs, run)
    student = rung.train(stage)
    while student.gate == "stopped" and curable(student, gate):
        if gate.policy == "extend" and student.extensions < gate.max_extensions:
            student = rung.extend(stage, student, gate.extend_steps)
        elif gate.policy == "insert" and len(rung.assistants) < gate.max_inserts and (assistant := rung.assistant(stage)):
            rung.insert(assistant, stage)
            student = rung.train(stage)
        elif gate.policy == "ask":
            decision = ask(student, stage, run)
            if decision.choice == "train longer":
                student = _decided(rung.extend(stage, student, decision.steps), student.decision, decision.words)
            else:
                verdict = "approved" if decision.choice == "approve" else "stopped"
                judged = student.model_copy(update={"gate": verdict})
                student = record_decision(_decided(judged, student.decision, decision.words), run.context)
                break
        else:
            break
    return [*rung.assistants, student]


def _decided(student: StageRecord, earlier: str | None, words: str) -> StageRecord:
    return student.model_copy(update={"decision": "; ".join(filter(None, (earlier, words)))})


class Rung:
    """One student's ancestors, assistants included, of which the nearest teaches it."""

    def __init__(self, lineage: list[StageRecord], inputs: StageInputs, run: LadderRun) -> None:
        self.lineage, self.inputs, self.run = list(lineage), inputs, run
        self.assistants: list[StageRecord] = []

    def train(self, stage: Stage, extension: Extension | None = None, inserted: bool = False) -> StageRecord:
        """Run a stage as a flow of its own."""
        with tags(f"ladder:{self.inputs.ladder.name}", f"stage:{stage.name}"):
            return distill_stage(stage, self.lineage, self.inputs, extension, inserted)

    def extend(self, stage: Stage, student: StageRecord, steps: int | None) -> StageRecord:
        """Train the student on; `steps` None: half of the stage's steps."""
        extension = Extension(student=student, steps=steps or max(stage.training.steps // 2, 1))
        log.info("%s: trained on for %d steps (extension %d)", stage.name, extension.steps, extension.number)
        return self.train(stage, extension)

    def assistant(self, stage: Stage) -> Stage | None:
        """A stage between the teacher and the student, in size; None where no such size exists."""
        from models.architectures.checkpoint import skeleton
        from models.students.assistants import assistant_student

        parent, interface = self.lineage[-1], self.inputs.data.corpus().interface
        teacher = skeleton(Path(parent.folder), self.inputs.ladder.workload)
        student = assistant_student(teacher, stage.student, interface)
        if student is None:
            log.warning("%s: no size lies between it and %s; no assistant can be inserted", stage.name, parent.name)
            return None
        number = len(self.assistants) + 1
        name = f"{stage.name[:50]}-assistant" + (f"-{number}" if number > 1 else "")
        notes = f"inserted by the gate of {stage.name}, between it and {parent.name}"
        return stage.model_copy(update={"name": name, "notes": notes, "student": student, "gate": Gate(policy="warn")})

    def insert(self, assistant: Stage, stage: Stage) -> None:
        """Make the assistant, which teaches from now on."""
        log.info("%s: inserting %s between it and %s", stage.name, assistant.name, self.lineage[-1].name)
        self.run.plan_before(stage.name, assistant.name)
        made = self.train(assistant, inserted=True)
        self.assistants.append(made)
        self.lineage.append(made)
