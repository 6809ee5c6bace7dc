"""Gradients of one optimisation step, over micro-batches and processes.

The batch is taken in as many parts as the plan says. Value and gradient are those of the whole batch at once, however many parts and
processes share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from conf.errors import UserError
from conf.schema.compute import Strategy
from conf.schema.stage.objective import WHOLE_BATCH, Objective
from conf.schema.stage.training import Training
from models.base.sharding import whole
from models.data.batches import Batch
from models.losses.chunked import Head, chunked_loss, head_of
from models.losses.features import Features
from models.losses.loss import LossSums, StepObjective, distillation_loss
from models.losses.schedules import Turns
from models.losses.support import check_support
from models.signals.sources import SignalSource, hidden_rows, rows


class Losses(NamedTuple):
    """Losses of a step in nats per valid row, cross-entropies per labelled row, at the weights before it; of answers, but `rationale`."""

    loss: float  # with that of rationales, times their weight
    ce: float
    kd: float  # T^2 times the divergence
    teacher_ce: float | None
    rationale: float | None = None  # the same loss per valid row of rationales; None: there are none


class _Task(NamedTuple):
    """Rows that are averaged together: those of the whole step, on every process alike."""

    rationale: bool | None  # None: there is one task
    weight: float  # of its mean in the loss
    valid: int
    labelled: int


@dataclass(frozen=True)
class Plan:
    """Settings, objective, seed and device of a training."""

    training: Training
    objective: Objective | None  # None: labels alone
    seed: int
    vocabulary: int | None  # of a causal LM
    device: str = "cpu"
    precision: str = "fp32"  # bf16 or fp32; resolved, never auto
    class_weights: tuple[float, ...] | None = None  # of classes in the cross-entropy; None: all alike
    turns: Turns | None = None  # of the teachers; None: all teach throughout
    rationale: float = 1.0  # weight of the mean over the rationales' rows beside that over the answers', where a batch holds any
    strategy: Strategy = "ddp"  # of several processes


class StudentInTraining(NamedTuple):
    """The student in training: wrapped for its device, as it is, its head where it can be split off, and its feature losses."""

    model: nn.Module
    plain: nn.Module
    head: Head | None
    features: Features | None


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Let a model keep its layers' inputs alone and compute each layer again for its gradient, which stays the same to the last bit.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174; transformers' own implementation.

    Raises:
        UserError: transformers cannot do it for this model.
    """
    switched = cast(Any, model)
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError.about(
            "training.recompute", True, f"false for a {type(model).__name__}", "Leave it out, or raise training.accumulation."
        )
    try:
        switched.activation_checkpointing_enable({"use_reentrant": False})
        yield
    finally:
        switched.activation_checkpointing_disable()
        switched.disable_input_require_grads()  # a hook on the embedding, which transformers leaves


def check_batch_statistics(model: nn.Module, training: Training, key: str = "training", processes: int = 1) -> None:
    """Refuse layers that would normalise a batch in parts: with batch normalisation several micro-batches are not one batch.

    Raises:
        UserError: The model has layers of batch normalisation, and a step is split or computed twice.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return
    kind = f"for a {type(model).__name__}, whose batch normalisation takes its statistics from whole batches"
    if training.accumulation > 1:
        raise UserError.about(f"{key}.accumulation", training.accumulation, f"1, {kind}", "Leave it out, or lower batch_size.")
    if training.recompute:
        raise UserError.about(f"{key}.recompute", True, f"false, {kind}", "Leave it out.")
    if processes > 1:
        raise UserError.about("compute.workers", processes, f"1, {kind}", "Leave it out.")


def check_whole_batches(objective: Objective | None, training: Training, processes: int) -> None:
    """Refuse to split a batch whose rows the objective compares with one another.

    Raises:
        UserError: A step is taken in micro-batches, or by several processes.
    """
    if objective is None or objective.kind not in WHOLE_BATCH:
        return
    why = f"for objective.kind {objective.kind}, which compares each row with all others of its batch"
    if training.accumulation > 1:
        raise UserError.about("training.accumulation", training.accumulation, f"1, {why}", "Leave it out, or lower batch_size.")
    if processes > 1:
        raise UserError.about("compute.workers", processes, f"1, {why}", "Leave it out.")


def gradients(
    accelerator: Accelerator,
    student: StudentInTraining,
    batch: Batch,
    plan: Plan,
    sources: Sequence[SignalSource],
    at: StepObjective | None,
) -> tuple[Losses, float, int]:
    """Leave the gradients of one optimisation step, clipped, on the student's parameters.

    Args:
        accelerator: That of this training.
        student: The model in training.
        batch: Of the whole step; taken in as many parts as the plan accumulates.
        plan: Of this training.
        sources: Signal sources of the teachers of this step.
        at: The objective at this step; None: labels alone.

    Raises:
        UserError: The objective is infinite, because teacher and student rule out different ids.

    Returns:
        The losses per valid row, the gradient's norm before clipping, and the number of ids or classes.
    """
    student.model.train()
    processes, parts = accelerator.num_processes, plan.training.accumulation
    tasks = _tasks(batch, plan)
    mine = batch.part(accelerator.process_index, processes) if processes > 1 else batch
    totals, width = torch.zeros(len(tasks), 4, dtype=torch.float64), 1
    used = _weighted(at or StepObjective(plan.objective or Objective(), 0.0, 1.0), plan, batch)
    for index in range(parts):
        micro = (mine.part(index, parts) if parts > 1 else mine).trimmed().to(accelerator.device)
        last = index == parts - 1
        with nullcontext() if last else accelerator.no_sync(student.model):
            # Data-parallel training averages gradients over processes; the sum is wanted.
            scales = [task.weight * processes / task.valid for task in tasks]
            found, width = _micro_loss(accelerator, student, micro, plan, sources, used, list(zip(tasks, scales, strict=True)))
            if any(sums is not None for sums in found):  # else it holds rationales without a weight
                accelerator.backward(_total([sums for sums in found if sums is not None]))
        for place, sums in enumerate(found):
            if sums is not None:
                scaled = torch.tensor([scales[place], 1.0, 1.0, 1.0])
                totals[place] += torch.stack([s.detach().double() for s in sums]).cpu() / scaled
    own = list(student.features.parameters()) if student.features else []
    if processes > 1:
        totals = cast(Tensor, accelerator.reduce(totals.to(accelerator.device), "sum")).cpu()
        for parameter in own:
            parameter.grad = cast(Tensor, accelerator.reduce(parameter.grad, "mean"))
    means = (totals / torch.tensor([[task.valid, task.labelled, task.valid, task.labelled] for task in tasks])).tolist()
    (_, ce, kd, teacher_ce), loss = means[0], sum(task.weight * mean[0] for task, mean in zip(tasks, means, strict=True))
    if at is not None and not all(math.isfinite(mean[2]) for mean in means):
        for index in range(parts):
            _check_support(student, mine.part(index, parts).to(accelerator.device), plan, sources, at)
    norm = float(whole(cast(Tensor, accelerator.clip_grad_norm_([*student.model.parameters(), *own], plan.training.clip))))
    known = teacher_ce if sources and not math.isnan(teacher_ce) else None
    return Losses(loss, ce, kd, known, means[1][0] if len(means) > 1 else None), norm, width


def _tasks(batch: Batch, plan: Plan) -> tuple[_Task, ...]:
    """The answers of a step, and its rationales where it holds any: `L = L_answer + weight L_rationale`, each the mean over its own rows.

    A rationale has more tokens than an answer, so one mean over all rows would lose the weight. Hsieh et al. 2023, "Distilling
    Step-by-Step", arXiv:2305.02301, equation 3.
    """
    if batch.rationale is None:
        return (_Task(None, 1.0, max(batch.valid, 1), max(batch.labelled, 1)),)
    weights = {False: 1.0, True: plan.rationale} if plan.rationale else {False: 1.0}
    each = [(kind, weight, batch.task(kind)) for kind, weight in weights.items()]
    return tuple(_Task(kind, weight, max(own.valid, 1), max(own.labelled, 1)) for kind, weight, own in each)


def _total(found: Sequence[LossSums]) -> Tensor:
    return found[0].total if len(found) == 1 else torch.stack([sums.total for sums in found]).sum()


@torch.no_grad()
def _check_support(student: StudentInTraining, micro: Batch, plan: Plan, sources: Sequence[SignalSource], at: StepObjective) -> None:
    signals = [source(micro) for source in sources]
    check_support(rows(student.plain, micro, plan.vocabulary), signals, micro.targets.flatten(), at)


def _weighted(at: StepObjective, plan: Plan, batch: Batch) -> StepObjective:
    """The objective with the plan's weights of classes, scaled to a mean of 1 over the labelled rows of the whole step.

    So the cross-entropy is a weighted mean over them, `sum w CE / sum w`, however many micro-batches and processes share the step.
    """
    if plan.class_weights is None:
        return at
    weights, targets = torch.tensor(plan.class_weights), batch.targets.flatten()
    known = weights[targets[targets >= 0]]
    return replace(at, class_weights=weights / known.mean() if len(known) else weights)


def _micro_loss(
    accelerator: Accelerator,
    student: StudentInTraining,
    micro: Batch,
    plan: Plan,
    sources: Sequence[SignalSource],
    at: StepObjective,
    tasks: Sequence[tuple[_Task, float]],
) -> tuple[list[LossSums | None], int]:
    """The losses of a micro-batch, and the number of ids or classes.

    Of each task the sums over its valid rows, `total` times the task's scale; None where the micro-batch holds none of it.
    """
    with accelerator.autocast():
        if student.head is not None:
            states, width = hidden_rows(student.model, micro, student.plain), plan.vocabulary or 1
            head = head_of(student.plain) or student.head  # whole from here on, where the student is spread over processes
        else:
            states, head = rows(student.model, micro, plan.vocabulary), None
            width = states.shape[-1]
        signals, found = [source(micro) for source in sources], list[LossSums | None]()
        for task, scale in tasks:
            own = micro if task.rationale is None else micro.task(task.rationale)
            if task.rationale is not None and not own.valid:
                found.append(None)
                continue
            targets = own.targets.flatten()
            if head is not None:
                sums = chunked_loss(states, head, signals, targets, at, vocabulary=plan.vocabulary, scale=scale)
            else:
                with torch.autocast(accelerator.device.type, enabled=False):
                    sums = distillation_loss(states, signals, targets, at)
                    sums = sums._replace(total=sums.total * scale)
            if student.features is not None:
                sums = sums._replace(total=sums.total + scale * student.features.loss(own))
            found.append(sums)
    return found, width
