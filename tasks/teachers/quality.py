"""Refuse a root teacher that is no better than a guess, or that answers NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping

from conf.errors import UserError
from conf.schema.workloads import answers_in_ids, makes_embeddings
from models.base.quality import baseline_figures, baseline_name, learned_nothing
from tasks.records.format import percent
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs

TRIAL_STEPS = 100  # fewer teach no model anything for sure: whoever sets them tries whether a ladder runs


def accept_teacher(record: StageRecord, inputs: StageInputs) -> StageRecord:
    """The evaluated root teacher, marked as poor where it is and `teacher.allow_poor` lets it teach.

    Raises:
        UserError: It is poor, or a figure of its answers is not a number; with its figures.
    """
    workload = inputs.ladder.workload
    if any(math.isnan(record.metrics.get(key, 0.0)) for key in ("nll", "accuracy", "cosine")):
        remedy = "Its weights or its numbers are damaged; bf16 may be too narrow for it: training.precision=fp32."
        raise UserError.about("teacher", f"answers with NaN on held-out {_rows(workload)}", "finite answers", remedy)
    why = poor(record.metrics, workload)
    if why is None:
        return record
    allowed = inputs.ladder.teacher.allow_poor
    trial = _trial(inputs) if allowed == "trial" else None
    if not allowed or (allowed == "trial" and trial is None):
        remedy = "Check its classes, its tokenizer and the data, or train it longer; teacher.allow_poor=true lets it teach."
        raise UserError.about("teacher", why, f"a teacher that is better than the {baseline_name(workload)}", remedy)
    log.warning(
        "teacher: %s; %s", why, f"it teaches all the same, after a trial of {trial}" if trial else "teacher.allow_poor lets it teach"
    )
    return record.model_copy(update={"poor": why})


def _trial(inputs: StageInputs) -> str | None:
    """The length of a training here that is too short to judge its teacher by; None: it is long enough."""
    training = inputs.ladder.teacher.training
    if training is None:
        return None
    from models.data.batches import TrainingBatches  # imports torch, which a reused run needs not

    batches = TrainingBatches(inputs.data.corpus(), training.batch_size, inputs.ladder.seed, labelled=True)
    if training.steps * training.batch_size < batches.examples:
        return f"{training.steps} steps, less than an epoch"
    return f"{training.steps} steps" if training.steps < TRIAL_STEPS else None


def poor(metrics: Mapping[str, float], workload: str) -> str | None:
    """Why a teacher is no better than a guess that reads no input, with its figures; None: it is better, or its baseline is unknown.

    Classification: its accuracy must be above that of the best constant answer. Causal-lm: its nats a token below unigram frequencies'.
    """
    guess = baseline_figures(metrics)
    if not guess:
        return None
    if makes_embeddings(workload):
        worse, figures = learned_nothing(metrics) is not None, "the same embedding for every text"
    elif answers_in_ids(workload):
        worse = not metrics["nll"] < guess["nll"]
        figures = f"{metrics['nll']:.3f} nats a token, unigram frequencies {guess['nll']:.3f}"
    else:
        worse = learned_nothing(metrics) is not None or not metrics["accuracy"] > guess["accuracy"]
        figures = f"accuracy {percent(metrics['accuracy'])}, the majority class {percent(guess['accuracy'])}"
    return f"{figures}, on the same held-out {_rows(workload)}" if worse else None


def _rows(workload: str) -> str:
    return "tokens" if answers_in_ids(workload) else "examples"
