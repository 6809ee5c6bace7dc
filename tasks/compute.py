"""Found, resumed or computed: the one way by which a model of the ladder comes into being, the root teacher included."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conf.errors import UserError
from conf.home import Home, disk_errors
from conf.schema import Evaluation, Ladder, Objective, Training
from models.batches import TrainingBatches, evaluation_batches
from models.checkpoint import load_model, save_model, weights_sha256
from models.corpus import Corpus
from models.device import resolve_device, resolve_precision
from models.evaluation import collect, quality
from models.resume import Checkpoints
from models.shapes import Interface, Size, count
from models.signals import live
from models.training import Plan, Step, Trained, train
from tasks import stopping, tracking
from tasks.console import log
from tasks.fingerprint import changes, fingerprint
from tasks.progress import TrainingProgress
from tasks.recording import Curves, Recorder, points_of
from tasks.records import DataRecord, StageRecord
from tasks.runs import Context
from tasks.slots import training_slot
from tasks.store import Found, Store


@dataclass(frozen=True)
class Work:
    """A model to make: its identity, and how to make it if the store does not hold it.

    Attributes:
        name: Of the stage, or `teacher`.
        kind: `stage` or `teacher`: the part of the store.
        identity: What is hashed.
        training: Its schedule.
        objective: None: labels alone.
        seed: Of batches and weights.
        make: Builds the untrained model from its nearest teacher, on the processor.
        teachers: Records of its teachers, nearest first.
    """

    name: str
    kind: str
    identity: dict[str, Any]
    training: Training
    objective: Objective | None
    seed: int
    make: Callable[[nn.Module | None], nn.Module]
    teachers: tuple[StageRecord, ...] = ()


def store_of(context: Context) -> Store:
    """The store of a run; what it has to say goes to the log."""
    return Store(context.paths, log.warning)


@functools.lru_cache(maxsize=1)
def tracker_of(home: Home) -> tracking.Tracker:
    """The connection to MLflow, opened once in a process."""
    return tracking.connect(home)


@functools.lru_cache(maxsize=4)
def recorder_of(home: Home, run: str) -> Recorder:
    """What keeps the record of a run, and what is missing in it."""
    return Recorder(tracker_of(home))


def corpus_of(data: DataRecord) -> Corpus:
    """The corpus that a data record names."""
    return Corpus(Path(data.folder), data.content_hash)


def interface_of(corpus: Corpus) -> Interface:
    """What the data ask of every model."""
    info = corpus.info
    return Interface(info.workload, info.sequence_length, info.vocabulary, info.end_id, info.pad_id, info.classes, info.image_shape)


def precision_of(ladder: Ladder, training: Training) -> str:
    """`bf16` or `fp32`, on the device that this process will use."""
    return resolve_precision(training.precision, resolve_device(ladder.compute.device))


def vocabulary_of(interface: Interface) -> int | None:
    """Ids that a causal LM's logits are cut to; None for classifiers."""
    return interface.vocabulary if interface.workload == "causal-lm" else None


def use_threads(ladder: Ladder) -> None:
    """Apply `compute.threads`."""
    if ladder.compute.threads:
        torch.set_num_threads(ladder.compute.threads)


def reusable(store: Store, kind: str, mark: str, context: Context, name: str) -> Found | None:
    """The finished result, unless this run was asked to compute it anew and has not done so yet."""
    found = store.find(kind, mark)
    if found and is_fresh(context, name) and found.manifest["run"] != context.run:
        return None
    return found


def is_fresh(context: Context, name: str) -> bool:
    """Whether `--fresh` asks for this model: all of them, or those from `--start-at` on."""
    return context.fresh and name not in context.kept


def require_started(context: Context, name: str, remedy: str) -> None:
    """Refuse to compute what comes before `--start-at`.

    Raises:
        UserError: `name` comes before it and the store does not hold it.
    """
    if name in context.kept:
        raise UserError.about("--start-at", context.start_at, f"a stage whose predecessors are finished; {name} is not", remedy)


def obtain(work: Work, ladder: Ladder, data: DataRecord, context: Context) -> StageRecord:
    """Find the model in the store, or resume or compute it.

    Raises:
        UserError: It would have to be computed, but stands before `--start-at`.
        TrainingDiverged: Its loss left all bounds.
        StoreError: The disk is full.
    """
    store, mark = store_of(context), fingerprint(work.identity)
    with store.lock(mark):
        found = reusable(store, work.kind, mark, context, work.name)
        if found:
            log.info("%s: found in the store (%s), reused", work.name, mark[:12])
            return read_record(found, reused=True)
        require_started(context, work.name, "Run without --start-at, or with the settings that they were made with.")
        _say_why(store, work, mark, context)
        checkpoints = _checkpoints(store, mark, context, work.name)
        with training_slot(ladder.compute.at_once, context.run):
            model, trained, size = _train(work, ladder, corpus_of(data), context, checkpoints)
        found = store.publish(
            work.kind, work.name, work.identity, mark, context.made, lambda folder: _write(folder, work, mark, model, trained, size, data)
        )
        shutil.rmtree(checkpoints.folder, ignore_errors=True)
        return read_record(found, reused=False, resumed_at=trained.resumed_at)


def read_record(found: Found, *, reused: bool, resumed_at: int | None = None) -> StageRecord:
    """The record of a verified folder, with where it lies and whether it was found there or made now."""
    manifest = found.manifest
    record = StageRecord.model_validate_json((found.folder / "record.json").read_text())
    where = {"folder": str(found.folder), "identity": manifest["identity"], "fingerprint": manifest["fingerprint"]}
    how = {"reused": reused, "reused_from": manifest["run"] if reused else None, "resumed_at": resumed_at}
    return record.model_copy(update=where | how)


def _say_why(store: Store, work: Work, mark: str, context: Context) -> None:
    resumable = store.resumable(mark)
    if resumable is not None and not is_fresh(context, work.name):
        log.info("%s: resumed from step %d (%s)", work.name, resumable, mark[:12])
        return
    known = store.latest(work.kind, work.name, context.ladder)
    differences = changes(known["identity"], work.identity) if known else []
    why = f" because {'; '.join(differences)}" if differences else ""
    log.info("%s: computed%s (%s)", work.name, why, mark[:12])


def _checkpoints(store: Store, mark: str, context: Context, name: str) -> Checkpoints:
    """Where to go on; `--fresh` drops what another run left, not what this one wrote before it was killed."""
    folder = store.checkpoints(mark)
    owner = folder / "run"
    with disk_errors(context.paths):
        if is_fresh(context, name) and not (owner.is_file() and owner.read_text() == context.run):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        owner.write_text(context.run)
    return Checkpoints(folder)


def _train(work: Work, ladder: Ladder, corpus: Corpus, context: Context, checkpoints: Checkpoints) -> tuple[nn.Module, Trained, Size]:
    use_threads(ladder)
    interface = interface_of(corpus)
    device, precision = resolve_device(ladder.compute.device), precision_of(ladder, work.training)
    plan = Plan(work.training, work.objective, work.seed, vocabulary_of(interface), device, precision)
    teacher = (
        load_model(Path(work.teachers[0].folder), interface.workload, dtype=_frozen_dtype(device, precision)) if work.teachers else None
    )
    model = work.make(teacher)
    signals = live(teacher.to(device), plan.vocabulary) if teacher is not None and _teaches(work) else None
    size = count(model, interface.sequence_length)
    unit = "tok" if interface.workload == "causal-lm" else "ex"
    with ExitStack() as stack:
        progress = stack.enter_context(TrainingProgress(work.name, work.training.steps, unit))
        stack.enter_context(disk_errors(context.paths))
        stack.enter_context(stopping.training(work.name))
        curves = stack.enter_context(stage_curves(work, context))

        def on_step(step: Step) -> None:
            progress.on_step(step)
            if curves:
                curves.add(step.step, points_of(step))

        trained = train(
            model,
            TrainingBatches(corpus, work.training.batch_size, work.seed),
            plan,
            signals=signals,
            checkpoints=checkpoints,
            validate=validator(corpus, ladder.evaluation, interface, device, precision),
            on_step=on_step,
            before_checkpoint=curves.flush if curves else None,
            should_stop=stopping.requested,
        )
    return model, trained, size


def stage_curves(work: Work, context: Context) -> AbstractContextManager[Curves | None]:
    """The model's curves, for its own MLflow run or the one that an interrupted attempt left open; None outside a ladder run."""
    if context.mlflow_run_id is None:
        return nullcontext()
    mark = fingerprint(work.identity)
    open_run = functools.partial(
        tracker_of(context.paths).open_stage,
        context.mlflow_run_id,
        work.name,
        mark,
        settings=work.identity,
        teacher_run_ids=[t.mlflow_run_id for t in work.teachers if t.mlflow_run_id],
    )
    return recorder_of(context.paths, context.run).curves(work.name, mark, open_run)


def _teaches(work: Work) -> bool:
    """Whether the teacher's forward is worth its price: not where alpha is 0 throughout."""
    return work.objective is not None and bool(work.teachers) and bool(work.objective.alpha.start or work.objective.alpha.end)


def _frozen_dtype(device: str, precision: str) -> torch.dtype:
    """A frozen teacher on a GPU needs no fp32 copy of its weights when it computes in bf16."""
    return torch.bfloat16 if device == "cuda" and precision == "bf16" else torch.float32


def validator(
    corpus: Corpus, evaluation: Evaluation, interface: Interface, device: str, precision: str
) -> Callable[[nn.Module], dict[str, float]]:
    """A quick validation on a quarter of the held-out examples that the final evaluation uses."""
    examples = max(evaluation.examples // 4, 1)

    def validate(model: nn.Module) -> dict[str, float]:
        batches = evaluation_batches(corpus, "valid", examples, evaluation.batch_size)
        columns = collect(model, {}, batches, vocabulary_of(interface), torch.device(device), precision)
        figures = quality(columns, corpus, "valid").metrics
        return {key: figures[key] for key in ("nll", "accuracy")}

    return validate


def _write(folder: Path, work: Work, mark: str, model: nn.Module, trained: Trained, size: Size, data: DataRecord) -> None:
    save_model(model.cpu(), folder, corpus_of(data).tokenizer_folder)
    forward = size.forward_flops / size.tokens
    teacher_forward = work.teachers[0].flops_per_token if _teaches(work) else 0.0
    positions = trained.steps * work.training.batch_size * size.tokens
    record = StageRecord(
        name=work.name,
        fingerprint=mark,
        identity={},
        folder="",
        weights_sha256=weights_sha256(folder),
        parameters=size.parameters,
        non_embedding=size.non_embedding,
        flops_per_token=forward,
        steps=trained.steps,
        tokens=trained.tokens,
        flops=positions * (3 * forward + teacher_forward),
        seconds=trained.seconds,
        early_stopped=trained.early_stopped,
        reused=False,
        teachers=tuple(t.name for t in work.teachers),
        teacher_fingerprints=tuple(t.fingerprint for t in work.teachers),
    )
    (folder / "record.json").write_text(record.model_dump_json(indent=1))
    (folder / "curve.json").write_text(json.dumps(trained.curve))
