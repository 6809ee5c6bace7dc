"""Records of runs, stages and data: plain JSON that passes from task to task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from models.base.task_figures import TaskFigures
from models.data.corpus import Corpus
from tasks.records.audit import AuditRecord
from tasks.records.base import Record
from tasks.records.bench import ModelBench
from tasks.records.choice.generation import GenerationRecord
from tasks.records.choice.route import RouteDecision
from tasks.records.choice.teacher import TeacherChoice
from tasks.records.data import DataCounts

TEACHER = "teacher"  # name of the root teacher among the models of a run
Status = Literal["running", "done", "failed", "stopped", "interrupted", "cancelled"]
Kind = Literal["ladder", "stage", "proof", "search"]
Verdict = Literal["passed", "warned", "stopped", "approved"]


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its offset from UTC")
    return text


Moment = Annotated[str, AfterValidator(_moment)]  # ISO 8601


class Retention(Record):
    """Share of a teacher's quality that a student keeps: accuracy ratio, or perplexity ratio for language models (1: all)."""

    parent: float | None = None
    root: float | None = None


class SampleRecord(Record):
    """A held-out document's beginning, and how a language model went on."""

    prompt: str
    text: str


class DataRecord(Record):
    """A prepared corpus in the store."""

    fingerprint: str
    folder: str
    content_hash: str
    reused: bool
    seconds: float
    counts: DataCounts | None = None  # None in records of earlier versions
    also: dict[str, DataRecord] = Field(default={})  # further held-out data, by name

    def corpus(self) -> Corpus:
        """The corpus in its folder."""
        return Corpus(Path(self.folder), self.content_hash)


class AlsoRecord(Record):
    """Quality on further held-out data.

    Attributes:
        metrics: As of a `StageRecord`.
        rows: Examples, or tokens, that it was judged on.
        few: Whether they are fewer than `audit.min_count`.
    """

    metrics: dict[str, float]
    retention: Retention = Retention()
    rows: int
    few: bool


COMPARED = (
    "its tokenizer is not that of its students, so bits per byte and retention compare the same bytes by each model's own tokens, and "
    "agreement, divergence, its accuracy and audits the tokens before which both tokenizations have a boundary"
)


class StageRecord(Record):
    """A model of the ladder, the root teacher included: its identity, folder, cost and quality.

    Attributes:
        identity: The parts that were hashed into `fingerprint`, so that a later plan can say which of them changed.
        steps: Steps trained; fewer than the schedule's when patience ended the training early.
        seconds: Seconds of training, over all attempts; 0 for an imported checkpoint.
        flops: Floating-point operations of training, the teacher's forward passes counted.
        resumed_at: Step from which this run went on, when an earlier attempt was interrupted.
        reused_from: Run that computed it, when `reused`.
        metrics: `nll` (nats/token or nats/example); for causal-lm `bits_per_byte`, `perplexity`; for classification `accuracy`,
            `macro_f1`, `ece`; for students `agreement_parent`, `kl_parent`, `agreement_root`, `kl_root` (nats), `parent_nll`,
            `root_nll`; `baseline_...` of the majority class or unigram frequencies on the same rows; for classification
            `distinct_answers`, the number of classes that it ever answers.
        slices: The same per slice, with `count`.
        also: Quality on each corpus of `evaluation.also`, by its name.
        tasks: Figures in each of `evaluation.tasks`, by its name.
        samples: Continuations by a language model.
        gate: Verdict of the gate, None for the teacher and for a stage that asks nothing; `approved` by a person though something
            was missed.
        vocabulary: Ids of a student that has only those that the data use; None: all of the tokenizer's.
        signals: How the teachers were asked: `live`, or the kind, size and price of their cached answers; None: not at all.
        initial: `nll` and `accuracy` of a student straight after its initialisation, on the examples that validate its training.
        extensions: How often the gate had the student trained on.
        inserted: Whether the gate put this stage into the ladder, as an assistant between a teacher and a student.
        audit: Errors inherited from its teachers; None: not audited.
        decision: Decision of a person, or of the end of the time to answer, in words.
        signal_seconds: Seconds that the teachers' answers took, where they were put on disk for this training.
        all_signal_seconds: Seconds that all stored answers take which it learns from, those included that were stored before; None where
            an earlier version made it.
        answers_asked: Examples that its teachers answered for this training and that went to disk; None: they answered live.
        answers_copied: Stored answers that were given to other data with the same examples.
        bench: How fast it answers; None where it was not measured.
        poor: Why a root teacher is no better than a guess, where `teacher.allow_poor` lets it teach.
        choice: Trials that chose its teacher (teachers best), whose costs are in `flops` and `seconds`; None: it had no choice.
        members: The rung's other students, with seeds of their own, which teach the next with it; their costs are in `flops`, `seconds` and
            `signal_seconds`.
    """

    name: str
    fingerprint: str
    identity: dict[str, Any]
    folder: str
    weights_sha256: str
    parameters: int
    non_embedding: int
    flops_per_token: float  # of a forward pass
    steps: int
    tokens: int
    flops: float
    seconds: float
    reused: bool
    reused_from: str | None = None
    resumed_at: int | None = None
    early_stopped: bool = False
    teachers: tuple[str, ...] = ()  # names, nearest first
    teacher_fingerprints: tuple[str, ...] = ()
    metrics: dict[str, float] = Field(default={})
    slices: dict[str, dict[str, float]] = Field(default={})
    retention: Retention = Retention()
    also: dict[str, AlsoRecord] = Field(default={})
    tasks: dict[str, TaskFigures] = Field(default={})
    samples: tuple[SampleRecord, ...] = ()
    gate: Verdict | None = None
    gate_reasons: tuple[str, ...] = ()
    vocabulary: int | None = None
    signals: str | None = None
    initial: dict[str, float] = Field(default={})
    extensions: int = 0
    inserted: bool = False
    decision: str | None = None
    signal_seconds: float = 0.0
    all_signal_seconds: float | None = None
    answers_asked: int | None = None
    answers_copied: int = 0
    bench: ModelBench | None = None
    audit: AuditRecord | None = None
    poor: str | None = None
    members: tuple[StageRecord, ...] = ()
    choice: TeacherChoice | None = None
    mlflow_run_id: str | None = None
    prefect_run_id: str | None = None

    @property
    def compared(self) -> str | None:
        """Method of comparing a teacher with students whose tokenizer is another one; None: ids are shared."""
        return COMPARED if "tokenizer" in self.identity else None


def stage_record(folder: Path) -> StageRecord:
    """The record in the folder of a model.

    Raises:
        OSError: It is missing.
        ValueError: It is damaged, or of another version.
    """
    return StageRecord.model_validate_json((folder / "record.json").read_bytes())


class Extension(Record):
    """One more training of a student that its gate did not let pass: it goes on from `student`'s weights for `steps` steps."""

    student: StageRecord
    steps: int

    @property
    def number(self) -> int:
        """1 for the first extension."""
        return self.student.extensions + 1


class RunRecord(Record):
    """One `ladder run`: `runs/<run>/record.json`. `ladder show --json` prints it.

    Attributes:
        budget: How the ladder was shortened to a time, in words.
        only: The one stage that was made, where it was not the whole ladder; `named` are its teachers' fingerprints, the nearest first.
        repeats: The run that this one repeats, perhaps with other settings.
        note: Why it was made, in words of a person.
        by: Who asked for it.
        edited: Settings of the ladder's file that had changed since the last run with the same parameters, one line each.
        served: Whether it was started through a deployment, and not on a command line.
        attempt: 1, and one more for each automatic restart after a crash.
        restarts: How many of these are allowed.
        restarted: The flow run that was started in its place after its process had died, or why none was.
        unrecorded: Parts that MLflow did not take, in words; a rerun records them.
        waiting: The question to a person, while the run waits for the answer.
        proof: Whether it was `ladder prove`: beside its record lies `proof.json`, and `stages` are those of the first arm's first seed.
        search: Whether it was `ladder search`: beside its record lies `search.json`, and `stages` are the winner's, or the defaults'.
        version: Version of the ladder's model in MLflow's registry that its last student is, as `NAME/VERSION`; None: it is none.
        prefect_api: Address of the Prefect server that this run talks to, its own embedded one included.
        route: The choice of the route by pilots, where the ladder's `route` is auto.
        generation: Rounds of `data.generate`.
    """

    run: str
    ladder: str
    workload: str = "causal-lm"
    status: Status
    settings_hash: str  # of the resolved settings; a killed run with the same hash is continued
    source: str  # the ladder's name or path, as given
    overrides: tuple[str, ...] = ()
    whole: bool = False  # the ladder was given in full: `ladder.yaml` in the run's folder is its source
    budget: str | None = None
    only: str | None = None
    named: tuple[str, ...] = ()
    start_at: str | None = None
    fresh: bool = False
    started: Moment  # ISO 8601, UTC
    finished: Moment | None = None
    seconds: float | None = None  # of the last attempt
    pid: int
    folder: str
    report: str | None = None
    error: str | None = None
    data: DataRecord | None = None
    teacher: StageRecord | None = None
    stages: tuple[StageRecord, ...] = ()
    planned: tuple[str, ...] = ()  # names of all stages, done or not
    mlflow_uri: str | None = None
    mlflow_experiment_id: str | None = None
    mlflow_run_id: str | None = None
    prefect_run_id: str | None = None
    prefect_url: str | None = None
    prefect_api: str | None = None
    version: str | None = None
    repeats: str | None = None
    note: str | None = None
    by: str | None = None
    edited: tuple[str, ...] = ()
    served: bool = False
    proof: bool = False
    search: bool = False
    attempt: int = 1
    restarts: int = 0
    restarted: str | None = None
    unrecorded: tuple[str, ...] = ()
    waiting: str | None = None
    route: RouteDecision | None = None
    generation: tuple[GenerationRecord, ...] = ()
    environment: dict[str, Any] = Field(default={})

    @property
    def models(self) -> list[StageRecord]:
        """The finished models, the root teacher first."""
        return [*([self.teacher] if self.teacher else []), *self.stages]

    @property
    def kind(self) -> Kind:
        """The request: a whole ladder, one stage of it, a proof, or a search."""
        return "proof" if self.proof else "search" if self.search else "stage" if self.only else "ladder"

    @property
    def computed_flops(self) -> float:
        """Operations of the trainings of this run, pilots of its route among them, those of reused models not counted."""
        pilots = self.route.computed_flops if self.route else 0.0
        return pilots + sum(model.flops for model in self.models if not model.reused)

    @property
    def differs(self) -> tuple[str, ...]:
        """Differences from other runs of its ladder: parameters that were given, and changes of the ladder's file."""
        asked = [*self.overrides, *([f"--start-at {self.start_at}"] if self.start_at else []), *(["--fresh"] if self.fresh else [])]
        return (*asked, *(f"edited: {line}" for line in self.edited))
