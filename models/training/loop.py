"""The training loop: one for every workload, and for the root teacher too.

One loop serves every workload, and the root teacher too, which learns from labels alone. It uses no tracker: progress
goes to `on_step`. Everything random is a function of seed and step, so that a run resumed from a checkpoint ends with the
same weights, to the last bit on a processor, as one that was never disturbed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from conf.errors import RunCancelled, TrainingDiverged, UserError
from conf.schema.stage.training import Training
from models.architectures.attention import single_precision_gradient
from models.architectures.gated import lean_gates
from models.base.sharding import is_sharded, shard
from models.data.batches import IGNORE, Batch, TrainingBatches
from models.losses.features import Features
from models.losses.loss import StepObjective
from models.losses.schedules import Turns, learning_rate_at, teachers_asked, value_at
from models.losses.taid import Taid, advance
from models.signals.sources import SignalSource, rows, split_head
from models.training.checkpoints import Checkpoints
from models.training.compiled import compiled, eager
from models.training.on_policy import OnPolicyBatches
from models.training.step import Plan, StudentInTraining, check_batch_statistics, check_whole_batches, gradients, recomputed

CURVE_POINTS = 1000


class Step(NamedTuple):
    """The figures of one optimisation step, at the weights before it: losses in nats per valid row, cross-entropies per labelled row."""

    step: int  # steps finished, from 1
    loss: float
    ce: float
    kd: float  # T^2 times the divergence
    teacher_ce: float | None
    learning_rate: float
    alpha: float
    temperature: float
    grad_norm: float  # before clipping
    tokens_per_second: float  # valid rows a second, since this attempt began
    valid: dict[str, float] | None  # figures of a validation after this step
    rationale: float | None = None  # loss of the rationales alone, per valid row of theirs; None: there are none


@dataclass
class Progress:
    """The state of a training beside its tensors, as a checkpoint holds it."""

    seconds: float = 0.0
    tokens: int = 0
    reference: float | None = None  # loss that an explosion is measured against
    best: float = math.inf
    worse: int = 0  # validations without improvement
    stopped: bool = False
    taid: Taid = field(default_factory=Taid)
    curve: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"train": [], "valid": []})

    def __post_init__(self) -> None:
        self.taid = Taid(*self.taid)  # JSON has made a list of it


class Trained(NamedTuple):
    """The outcome of a training; the model itself was changed in place."""

    steps: int
    tokens: int
    seconds: float
    early_stopped: bool
    resumed_at: int | None
    curve: dict[str, list[dict[str, Any]]]


def accelerator_for(device: str, precision: str) -> Accelerator:
    """An accelerator for one training; the library's process-wide state of an earlier one is reset first."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")


def _has_unused(model: nn.Module, batch: Batch, vocabulary: int | None) -> bool:
    """Whether some trained parameter gets no gradient, such as a pooler's that nothing reads."""
    one = batch.part(0, len(batch.targets)).to(next(model.parameters()).device)
    trained = [each for each in model.parameters() if each.requires_grad]
    return any(each is None for each in torch.autograd.grad(rows(model, one, vocabulary).float().sum(), trained, allow_unused=True))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) and parameters added to every example alike (ViT's class token and positions) do not."""
    trained = [(_decays(name, p), p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for decays, p in trained if decays], "weight_decay": weight_decay},
        {"params": [p for decays, p in trained if not decays], "weight_decay": 0.0},
    ]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    # A tensor of its own, no layer's weight, with a batch dimension of 1.
    added = not name.endswith(".weight") and parameter.shape[:1] == (1,)
    return parameter.ndim >= 2 and not added


def train(
    model: nn.Module,
    batches: TrainingBatches | OnPolicyBatches,
    plan: Plan,
    *,
    signals: SignalSource | Sequence[SignalSource] | None = None,
    features: Features | None = None,
    checkpoints: Checkpoints | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_step: Callable[[Step], None] | None = None,
    before_checkpoint: Callable[[], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trained:
    """Train `model` in place.

    Args:
        model: On any device; moved to the plan's.
        batches: Addressed by step; those that the model writes itself hold that model.
        plan: Schedule, objective, seed, device, precision.
        signals: One source for each teacher; None to learn from labels alone.
        features: Losses on hidden states and attention of both models; hooked to `model` and to a teacher among `signals`.
        checkpoints: Where to write checkpoints, and to go on from; None: neither.
        validate: Gives the figures of a validation, among them `nll`, or of embeddings `distance`, which patience watches.
        on_step: Called after each step.
        before_checkpoint: Called before a checkpoint is written, so that no record of a finished step can be lost.
        should_stop: Called after each step; once it returns True, on any of several processes, a checkpoint is written and training ends.

    Raises:
        RunCancelled: `should_stop` returned True; called again, training goes on from that step.
        UserError: The layers of this model cannot be computed again (`training.recompute`) or compiled (`training.compile`), or the
            objective is infinite because teacher and student rule out different ids.
        TrainingDiverged: Loss or gradient is not finite, or the loss exploded; the checkpoints before it are kept.
    """
    t = plan.training
    sources = () if signals is None else (signals,) if callable(signals) else tuple(signals)
    accelerator = accelerator_for(plan.device, plan.precision)
    check_batch_statistics(model, t, processes=accelerator.num_processes)
    check_whole_batches(plan.objective, t, accelerator.num_processes)
    own = batches if isinstance(batches, OnPolicyBatches) else None
    if own is not None and accelerator.num_processes > 1:
        allowed = "live or cached, for a training on several processes, of which each would write"
        raise UserError.about("signals.source", "on-policy", allowed, "Start it without a launcher.")
    plain, state = model, Progress()
    # Checked before autocast wraps it, or processes share it: in half precision large logits are not exactly those of the head.
    head = split_head(plain) if plan.vocabulary is not None else None
    sharded = plan.strategy == "fsdp" and accelerator.num_processes > 1
    if sharded:
        shard(model.to(accelerator.device), accelerator.device)
    elif accelerator.num_processes > 1 and _has_unused(model.to(accelerator.device), batches.at(0), plan.vocabulary):
        # No process waits for their gradients then; those that the model's own forward does not lead to must not come from outside.
        cast(Any, accelerator).ddp_handler, head = DistributedDataParallelKwargs(find_unused_parameters=True), None
    whole = model if features is None else nn.ModuleDict({"student": model, "features": features.to(accelerator.device)})
    optimizer = torch.optim.AdamW(parameter_groups(whole, t.weight_decay), lr=t.learning_rate, betas=(t.beta1, t.beta2), fused=True)
    model, optimizer = (model, accelerator.prepare(optimizer)) if sharded else accelerator.prepare(model, optimizer)
    student = StudentInTraining(model, plain, head, features)
    loaded = checkpoints.load(whole, optimizer.optimizer) if checkpoints else None
    first = 0
    if loaded is not None:
        first, raw = loaded
        state = Progress(**raw)
    if own is not None and checkpoints is not None:
        own.load(checkpoints.beside)
    began, earlier, earlier_tokens = time.monotonic(), state.seconds, state.tokens
    step = first
    half = plan.device == "cpu" and plan.precision == "bf16"
    attention = single_precision_gradient(plain) if half else nullcontext()
    lean = compiled(plain) if t.compile else lean_gates(plain)  # the compiler chooses which activations to save
    with attention, lean, recomputed(plain) if t.recompute else nullcontext():
        while step < t.steps and not state.stopped:
            at = _weights(plan, step, state) if sources else None
            rate = learning_rate_at(t, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            _seed_random_numbers(plan, step)  # dropout, if a checkpoint's configuration has any
            with eager(t.compile):
                asked, batch = _asked(sources, plan, step), batches.at(step)
            batch = batch if asked else batch.labels_alone()
            losses, norm, width = gradients(accelerator, student, batch, plan, asked, at)
            if state.reference is None:
                state.reference = max(losses.loss, math.log(width))
            _refuse_divergence(losses.loss, norm, t.explosion * state.reference, step, rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            state.tokens += batch.valid
            state.seconds = earlier + time.monotonic() - began
            valid = None
            if validate and (step % t.validate_every == 0 or step == t.steps):
                with eager(t.compile):
                    valid = _validation(accelerator, plain, validate, t, state, checkpoints)
            speed = (state.tokens - earlier_tokens) / max(state.seconds - earlier, 1e-9)
            if at is not None and at.settings.kind == "taid":
                state.taid = advance(state.taid, losses.kd, step, t.steps)
            alpha, temperature = (at.alpha, at.temperature) if at else (0.0, 1.0)
            report = Step(step, *losses[:4], rate, alpha, temperature, norm, speed, valid, losses.rationale)
            _remember(state, report, t.steps)
            if on_step:
                on_step(report)
            stop = should_stop is not None and _on_any(accelerator, should_stop())
            if checkpoints and (step % t.checkpoint_every == 0 or step == t.steps or state.stopped or stop):
                if before_checkpoint:
                    before_checkpoint()
                kept = own.state() if own else None
                checkpoints.save(step, whole, optimizer.optimizer, asdict(state), kept, writes=accelerator.is_main_process)
            if stop:
                raise RunCancelled(f"at step {step} of {t.steps}")
    accelerator.wait_for_everyone()
    if t.patience is not None and checkpoints and validate:
        checkpoints.load_best(plain)
    plain.eval()
    return Trained(step, state.tokens, state.seconds, state.stopped and step < t.steps, first or None, state.curve)


def _refuse_divergence(loss: float, norm: float, limit: float, step: int, rate: float) -> None:
    where = f"at step {step + 1}, learning rate {rate:.3g}"
    advice = "Lower training.learning_rate or lengthen training.warmup; the last good checkpoint is kept."
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingDiverged(f"The loss is {loss:.4g} and the gradient's norm {norm:.4g} {where}. {advice}")
    if loss > limit:
        raise TrainingDiverged(f"The loss exploded to {loss:.4g}, above {limit:.4g}, {where}. {advice}")


def _on_any(accelerator: Accelerator, stop: bool) -> bool:
    """Whether one of the processes stops: all must end at the same step, or the others would wait for it for ever."""
    if accelerator.num_processes == 1:
        return stop
    flag = torch.tensor(float(stop), device=accelerator.device)
    return bool(cast(Tensor, accelerator.reduce(flag, "sum")) > 0)


def _weights(plan: Plan, step: int, state: Progress) -> StepObjective | None:
    """The objective at a step; None: labels alone."""
    if plan.objective is None:
        return None
    steps = plan.training.steps
    alpha, temperature = value_at(plan.objective.alpha, step, steps), value_at(plan.objective.temperature, step, steps)
    return StepObjective(plan.objective, alpha, temperature, state.taid.share)


def _asked(sources: Sequence[SignalSource], plan: Plan, step: int) -> Sequence[SignalSource]:
    """The teachers whose answers a step needs."""
    if plan.objective is None or not sources:
        return ()
    turns = plan.turns or Turns.of(len(sources))
    return [sources[index] for index in teachers_asked(plan.objective, turns, plan.seed, step, plan.training.steps)]


def _validation(
    accelerator: Accelerator,
    model: nn.Module,
    validate: Callable[[nn.Module], dict[str, float]],
    t: Training,
    state: Progress,
    checkpoints: Checkpoints | None,
) -> dict[str, float]:
    """The figures of a validation, which the first process makes for all: all must stop at the same step."""
    made = [validate(model) if accelerator.is_main_process or is_sharded(model) else {}]
    figures = broadcast_object_list(made)[0] if accelerator.num_processes > 1 else made[0]
    if t.patience is not None:
        watched = figures["nll"] if "nll" in figures else figures["distance"]
        if watched < state.best:
            state.best, state.worse = watched, 0
            if checkpoints:
                checkpoints.save_best(model, writes=accelerator.is_main_process)
        else:
            state.worse += 1
            state.stopped = state.worse >= t.patience
    return figures


def _remember(state: Progress, report: Step, steps: int) -> None:
    point = report._asdict()
    valid = point.pop("valid")
    if report.rationale is None:
        del point["rationale"]
    if report.step % max(1, steps // CURVE_POINTS) == 0 or report.step == 1:
        state.curve["train"].append(point)
    if valid is not None:
        state.curve["valid"].append({"step": report.step, **valid})


def _seed_random_numbers(plan: Plan, step: int) -> None:
    """On a processor its generator alone: for accelerators that are absent `torch.manual_seed` notes the whole stack of its caller."""
    seed = torch.default_generator.manual_seed if plan.device == "cpu" else torch.manual_seed
    seed((plan.seed * 1_000_003 + step) % 2**63)


__all__ = ["IGNORE", "Plan", "Step", "Trained", "accelerator_for", "train"]
