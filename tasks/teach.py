"""A training, with all that surrounds it in a run: teacher and student, batches, curves, progress, checkpoints."""

from __future__ import annotations

import functools
import json
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from conf.home import disk_errors
from conf.schema import Ladder
from models.batches import TrainingBatches
from models.checkpoint import load_model, save_model
from models.corpus import Corpus
from models.device import resolve_device
from models.files import weights_sha256
from models.resume import Checkpoints
from models.shapes import Size, count
from models.signals import live
from models.training import Plan, Step, Trained, train
from tasks import stopping
from tasks.compute import Work, corpus_of, interface_of, precision_of, recorder_of, tracker_of
from tasks.fingerprint import fingerprint
from tasks.measure import use_threads, validator, vocabulary_of
from tasks.progress import TrainingProgress
from tasks.recording import Curves, points_of
from tasks.records import DataRecord, StageRecord
from tasks.runs import Context


class Taught(NamedTuple):
    """A finished training: the model, what the training has to tell, and the model's size."""

    model: nn.Module
    trained: Trained
    size: Size


def teach(work: Work, ladder: Ladder, corpus: Corpus, context: Context, checkpoints: Path) -> Taught:
    """Train a model, from where its checkpoints in a folder stand."""
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
            checkpoints=Checkpoints(checkpoints),
            validate=validator(corpus, ladder.evaluation, interface, device, precision),
            on_step=on_step,
            before_checkpoint=curves.flush if curves else None,
            should_stop=stopping.requested,
        )
    return Taught(model, trained, size)


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


def write_model(folder: Path, work: Work, mark: str, taught: Taught, data: DataRecord) -> None:
    """The folder of a finished model: a Hugging Face folder with its record and curve."""
    trained, size = taught.trained, taught.size
    save_model(taught.model.cpu(), folder, corpus_of(data).tokenizer_folder)
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
