"""Train a model with checkpoints, curves and progress, and write its folder."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from conf.home import disk_errors
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import weight_of_rationales
from conf.schema.stage.signals import Signals
from conf.schema.workloads import answers_in_ids
from models.alignment.load import fit_tokenizer
from models.alignment.teacher import AlignedTeacher, plain
from models.architectures.checkpoint import load_model
from models.architectures.packing import check_packing
from models.architectures.shapes import Size, count
from models.base.device import precision_of, resolve_device, use_threads
from models.base.processes import process_count, process_rank
from models.base.sharding import gathered
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.evaluation.baselines import training_counts
from models.losses.class_weights import weights_of
from models.signals.sources import split_head
from models.students.vocabulary import VocabularyMap, fit_vocabulary, reduce_corpus, student_vocabulary
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, Trained, train
from models.training.on_policy import OnPolicyBatches
from models.training.served import ServedTeacher
from tasks.evaluation.evaluator import validator
from tasks.records.run import DataRecord
from tasks.runtime import cancellation as stopping
from tasks.runtime.logs import log
from tasks.runtime.progress import TrainingProgress
from tasks.runtime.runs.run_registry import Context
from tasks.store.fingerprint import fingerprint
from tasks.tracking.curves import CurveLogger, points_of
from tasks.tracking.recorder import recorder_of
from tasks.training.costs.cost_model import live_answers, training_flops, written_examples
from tasks.training.costs.examples import examples_trained, training_examples
from tasks.training.initialise import IMPORTANCE
from tasks.training.kept import kept_name, write_kept
from tasks.training.published import write_published
from tasks.training.signals.signal_cache import CachedSignals
from tasks.training.signals.teachers import (
    cached_signals,
    feature_losses,
    frozen_dtype,
    live_signals,
    log_usage,
    needs_teacher,
    spread_teacher,
)
from tasks.training.work import TOGETHER, Work, record_of


class FinishedTraining(NamedTuple):
    """A finished training: the model, its curve and counts, and the model's other files."""

    model: nn.Module
    trained: Trained
    size: Size
    vocabulary: VocabularyMap | None  # the ids that it has; None: all
    initial: dict[str, float]  # figures of a student before its first step
    kept: tuple[Path, ...]  # files that its making left
    cached: tuple[CachedSignals, ...]  # caches of its teachers' answers; none: they answered live
    answers: tuple[tuple[int, int], ...]  # of each teacher: operations of a forward pass, and the examples that it answered
    checkpoints: Checkpoints
    examples: int  # that it trained on, repeated ones as often as they came


def train_model(
    work: Work,
    ladder: Ladder,
    corpus: Corpus,
    context: Context,
    checkpoints: Path,
    *,
    show: Callable[[Step], None] | None = None,
) -> FinishedTraining:
    """Train a model, from where its checkpoints in a folder stand.

    Args:
        work: The model to make.
        ladder: Its ladder.
        corpus: The data.
        context: The run.
        checkpoints: Their folder.
        show: Takes the steps, to show and to record them, in the first of several processes.
    """
    use_threads(ladder)
    writes = process_rank() == 0
    vocabulary = student_vocabulary(work.vocabulary, corpus)
    corpus = reduce_corpus(corpus, vocabulary)
    interface = corpus.interface
    device, precision = resolve_device(ladder.compute.device), precision_of(ladder, work.training)
    weights = (
        weights_of(work.class_weights, corpus.info.label_names, training_counts(corpus).tolist(), work.name) if interface.classes else None
    )
    rationale = weight_of_rationales(work.rationale)
    strategy = ladder.compute.strategy if process_count() > 1 else "ddp"
    plan = Plan(work.training, work.objective, work.seed, interface.output_ids, device, precision, weights, work.turns, rationale, strategy)
    parent = work.parent or next(iter(work.teachers), None)
    # On their device before importance is measured on them.
    dtype, folders = frozen_dtype(device, precision), dict.fromkeys(r.folder for r in (parent, *work.teachers) if r is not None)
    above = {
        folder: fit_tokenizer(
            fit_vocabulary(load_model(Path(folder), interface.workload, dtype=dtype), Path(folder), vocabulary), Path(folder), corpus
        )
        for folder in folders
    }
    parts = strategy == "fsdp" and work.signals is None  # teachers that answer live are spread, too, and never whole on a device
    above = above if parts else {folder: each.to(device) for folder, each in above.items()}
    teacher = above[parent.folder] if parent is not None else None
    model = work.make(teacher, checkpoints)
    if not corpus.info.cross_document_attention:
        for each in (model.to(device), *above.values()):
            check_packing(plain(each))
    if interface.output_ids is not None and split_head(model) is None:
        log.info("%s: the head of a %s cannot be split off, so logits are computed whole: more memory", work.name, type(model).__name__)
    if work.training.compile:
        log.info("%s: torch.compile compiles the layers at the first step, which takes longer", work.name)
    forwards = [int(count(plain(above[t.folder]), interface.sequence_length).forward_flops) for t in work.teachers]
    if parts:
        above = {folder: spread_teacher(each, device, precision) for folder, each in above.items()}
    features = feature_losses(work, model, above)
    judge = next((above[each.folder] for each in work.teachers), None)
    validate = validator(corpus, ladder.evaluation, interface, device, precision, judge, work.objective.kind if work.objective else "")
    initial = validate(model.to(device)) if teacher is not None or work.pretrained else {}
    size = count(model, interface.sequence_length)
    unit = "tok" if answers_in_ids(interface.workload) else "ex"
    batches = TrainingBatches(
        corpus,
        work.training.batch_size,
        work.seed,
        labelled=not needs_teacher(work),
        rationales=rationale > 0,
        pool=work.training.pool,
    )
    silent = [each.unheard for t in work.teachers if isinstance(each := above[t.folder], AlignedTeacher)]
    unheard = torch.stack(silent).any(0) if silent else None
    cached = cached_signals(work, above, corpus, batches, device, precision, context, checkpoints / TOGETHER)
    if cached:
        teacher = None
        above.clear()  # their answers are on disk; their memory is the student's
        signals = [each.source for each in cached]
    else:
        signals = live_signals(work, above, interface, precision, checkpoints)
    spare = copy.deepcopy(model).cpu() if strategy == "fsdp" else None
    aside = Checkpoints(checkpoints, log.warning)
    with ExitStack() as stack:
        own = TrainingProgress(work.name, work.training.steps, unit) if show is None and writes else None
        shown = stack.enter_context(own).on_step if own else show
        stack.enter_context(disk_errors(context.paths))
        stack.enter_context(stopping.training(work.name))
        curves = stack.enter_context(stage_curves(work, context)) if own else None

        def on_step(step: Step) -> None:
            if step.step in work.keep:
                aside.save_weights(model, kept_name(step.step), writes)
            if shown:
                shown(step)
            if curves:
                curves.add(step.step, points_of(step))

        trained = train(
            model,
            batches if work.writing is None else OnPolicyBatches(batches, model, work.writing, work.training.steps, precision, unheard),
            plan,
            signals=signals,
            features=features,
            checkpoints=aside,
            validate=validate,
            on_step=on_step,
            before_checkpoint=curves.flush if curves else None,
            should_stop=stopping.requested,
        )
    for each in signals or ():
        if isinstance(each, ServedTeacher):
            log_usage(work.name, each)
    model = gathered(model, spare) if spare is not None else model
    epoch, done = training_examples(corpus, cached=False), work.training.model_copy(update={"steps": trained.steps})
    live_ones = (rows + epoch.explained(ladder, work.rationale, rows) for rows in _live_rows(work, trained.steps))
    answers = tuple(zip(forwards, tuple(each.examples for each in cached) or tuple(live_ones), strict=True))
    examples, kept = examples_trained(ladder, done, work.rationale, epoch), tuple(checkpoints.glob(IMPORTANCE))
    return FinishedTraining(model, trained, size, vocabulary, initial, kept, cached, answers, aside, examples)


def stage_curves(work: Work, context: Context) -> AbstractContextManager[CurveLogger | None]:
    """The model's curves, for its own MLflow run or the one that an interrupted attempt left open; None where it is not recorded."""
    teacher_run_ids = [t.mlflow_run_id for t in work.teachers if t.mlflow_run_id]
    recorder, key = recorder_of(context.paths, context.run), fingerprint(work.identity)
    return recorder.curves(
        context.mlflow_run_id,
        work.name,
        key,
        settings=work.identity,
        teacher_run_ids=teacher_run_ids,
        system_metrics=context.system_metrics,
    )


def _live_rows(work: Work, done: int) -> tuple[int, ...]:
    """Rows that each teacher has answered beside the student, in the steps done; their rationales come on top."""
    if work.objective is None or work.turns is None:
        return ()
    return live_answers(work.objective, work.turns, work.seed, work.training.steps, done, work.training.batch_size)


def _live_words(work: Work) -> str:
    """Description of the teachers' answers beside the student's training, for its record."""
    words = "on-policy" if work.writing else "live"
    return f"{words}, top {work.served.k} of {work.served.endpoint.model}" if work.served and work.served.endpoint else words


def write_model(folder: Path, work: Work, fingerprint: str, finished: FinishedTraining, data: DataRecord) -> None:
    """The folder of a finished model: a Hugging Face folder with its record and curve."""
    trained, size = finished.trained, finished.size
    parent = work.parent or next(iter(work.teachers), None)
    write_published(finished.model.cpu(), folder, data.corpus(), finished.vocabulary, Path(parent.folder) if parent else None)
    write_kept(finished.model, work.keep, finished.checkpoints, folder)
    for file in finished.kept:
        shutil.copy(file, folder / file.name)
    written = written_examples(work.writing or Signals(), work.training, trained.steps)
    flops = training_flops(int(size.forward_flops), finished.examples, finished.answers, written)
    record = record_of(
        folder,
        work.name,
        fingerprint,
        size,
        steps=trained.steps,
        tokens=trained.tokens,
        flops=flops.total,
        seconds=trained.seconds,
        early_stopped=trained.early_stopped,
        vocabulary=len(finished.vocabulary.kept) if finished.vocabulary else None,
        signals="; ".join(each.text for each in finished.cached) or (_live_words(work) if needs_teacher(work) else None),
        signal_seconds=sum(each.seconds for each in finished.cached),
        all_signal_seconds=sum(each.all_seconds for each in finished.cached),
        answers_asked=sum(each.examples for each in finished.cached) if finished.cached else None,
        answers_copied=sum(each.copied for each in finished.cached),
        initial=finished.initial,
        teachers=tuple(t.name for t in work.teachers),
        teacher_fingerprints=tuple(t.fingerprint for t in work.teachers),
    )
    (folder / "record.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
    before = [{"step": 0, **finished.initial}] if finished.initial else []
    (folder / "curve.json").write_text(json.dumps({**trained.curve, "valid": [*before, *trained.curve["valid"]]}), encoding="utf-8")
