"""The distillation loss from hidden states, a few rows of logits at a time.

Neither model's logits ever exist as a whole.

Shape legend: N rows that count, H width of the student's hidden state, V vocabulary, C rows of a chunk, R rows of a block.

The head's product, the loss and the gradients of hidden state and head are done for one chunk before the next begins, so memory
for logits is C * V instead of several times N * V, and backward only returns the gradients. As Liger Kernel's fused linear
cross-entropy does (Hsu et al. 2024, arXiv:2410.10989), here for distillation, live or from stored signals, on any device.

Within a chunk, KL and Jensen-Shannon are done block by block, small enough for a processor's cache, with their gradients in closed
form (`models.losses.closed_form`). Other objectives go through autograd over the chunk's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.losses.closed_form import block_, closed_form
from models.losses.loss import (
    HiddenSignal,
    LossSums,
    Signal,
    SparseSignal,
    StepObjective,
    TeacherSignal,
    counted,
    distillation_loss,
    select_rows,
    to_at_least_fp32,
)

CHUNK_ELEMENTS = {"cpu": 512 * 49152, "cuda": 2048 * 49152}  # logits of a chunk
SLICE = 4096  # ids whose gradients are added at once, on a processor
BLOCK_ELEMENTS = 4 * 49152  # logits of a block: 0.8 MB in fp32
AUTOGRAD_ELEMENTS = 16 * 49152  # of one that goes through autograd, whose operations cost more each


@dataclass(frozen=True)
class Head:
    """The last linear layer of a causal LM: hidden state to logits."""

    weight: Tensor  # (V or more, H)
    bias: Tensor | None


@dataclass(frozen=True)
class _Work:
    """Inputs of the loss that have no gradient; every row counts."""

    signals: Sequence[Signal]
    targets: Tensor  # (N,)
    at: StepObjective
    vocabulary: int
    scale: float
    dtype: torch.dtype  # of matrix products
    chunk: int | None


def head_of(model: nn.Module) -> Head | None:
    """The output head of a causal LM, if it is a plain linear layer."""
    layer = cast(Any, model).get_output_embeddings()
    return Head(layer.weight, layer.bias) if type(layer) is nn.Linear else None


def chunked_loss(
    hidden: Tensor,
    head: Head,
    signals: Sequence[Signal],
    targets: Tensor,
    at: StepObjective,
    *,
    vocabulary: int | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
) -> LossSums:
    """`distillation_loss` of `hidden @ head.weight.T + head.bias`, equal in value and gradient.

    Matrix products are done in autocast's precision where it is on; everything over V in fp32.

    Args:
        hidden: (N, H), rows that do not count included.
        head: Of the student.
        signals: The teachers' signals for the same rows; none: labels alone.
        targets: (N,) ids, `IGNORE` where the row does not count.
        at: The objective at this step.
        vocabulary: Ids of the tokenizer; the surplus of a padded head is cut. None: all.
        scale: `total` and its gradient are multiplied by it, at no cost.
        chunk: C; None: chosen by device.

    Returns:
        Sums; `total` carries the gradient.
    """
    keep = counted(targets, signals)
    if not bool(keep.all()):
        hidden, targets, signals = hidden[keep], targets[keep], [select_rows(signal, keep) for signal in signals]
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
    work = _Work(tuple(signals), targets, at, vocabulary or head.weight.shape[0], scale, dtype, chunk)
    with torch.autocast(kind, enabled=False):
        return LossSums(*cast(tuple[Tensor, ...], _Chunked.apply(hidden, head.weight, head.bias, work)))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> tuple[Tensor, ...]:
        wants = ctx.needs_input_grad
        half = weight[: work.vocabulary].to(work.dtype)
        offset = None if bias is None else bias[: work.vocabulary].to(work.dtype)
        grads: list[Tensor | None] = [
            torch.empty_like(hidden) if wants[0] else None,
            torch.empty_like(weight) if wants[1] else None,
            torch.zeros_like(bias) if bias is not None and wants[2] else None,
        ]
        if grads[1] is not None:  # the first chunk writes the rest
            grads[1][work.vocabulary if len(hidden) else 0 :].zero_()
        sums = torch.zeros(4, dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32, device=hidden.device)
        size = work.chunk or max(CHUNK_ELEMENTS.get(hidden.device.type, CHUNK_ELEMENTS["cuda"]) // work.vocabulary, 16)
        count = max(-(-len(hidden) // size), 1)
        size = -(-len(hidden) // count)  # even chunks: a short last one would cost as much as a long one
        for start in range(0, len(hidden), max(size, 1)):
            rows = slice(start, start + size)
            states = hidden[rows].to(work.dtype)
            logits = states @ half.T if offset is None else torch.addmm(offset, states, half.T)
            signals = [select_rows(signal, rows) for signal in work.signals]
            parts, gradient = _chunk(logits, signals, work.targets[rows], work.at, any(wants))
            sums += parts
            if gradient is not None:
                _accumulate(grads, gradient, states, half, work, rows)
        total = sums[0] * work.scale
        ctx.save_for_backward(*grads)
        ce, kd, teacher_ce = sums[1:].unbind()
        ctx.mark_non_differentiable(ce, kd, teacher_ce)
        return total, ce, kd, teacher_ce

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        factor = grad_outputs[0]
        grads = ctx.saved_tensors
        if factor.item() != 1:  # a pass over the head's gradient, which `scale` saves
            grads = [grad if grad is None else grad * factor.to(grad.dtype) for grad in grads]
        return (*grads, None)


def _accumulate(grads: list[Tensor | None], gradient: Tensor, states: Tensor, half: Tensor, work: _Work, rows: slice) -> None:
    """Add a chunk's share to the gradients of hidden states, head and bias."""
    into_hidden, into_weight, into_bias = grads
    if into_hidden is not None:
        into_hidden[rows].copy_(gradient @ half).mul_(work.scale)
    if into_weight is not None:
        # By slices of the vocabulary: the product in half precision is still in the cache when it is added in full.
        for start in range(0, work.vocabulary, slice_of(states)):
            ids = slice(start, min(start + slice_of(states), work.vocabulary))
            share = gradient[:, ids].T @ states
            into_weight[ids].add_(share, alpha=work.scale) if rows.start else into_weight[ids].copy_(share).mul_(work.scale)
    if into_bias is not None:
        into_bias[: work.vocabulary].add_(gradient.sum(0, dtype=into_bias.dtype), alpha=work.scale)


def slice_of(states: Tensor) -> int:
    """Ids whose gradients are added at once."""
    return SLICE if states.device.type == "cpu" else 2**31


def _chunk(logits: Tensor, signals: Sequence[Signal], targets: Tensor, at: StepObjective, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Sums (total, ce, kd, teacher_ce) of a chunk, and the gradient of `total` by its logits, in their dtype."""
    labelled = targets >= 0
    alike = bool(labelled.all()) or not bool(labelled.any())
    if not alike or not closed_form(signals, at):
        return _by_autograd(logits, signals, targets, at, wanted)
    teacher = signals[0] if signals else None
    dense = teacher.logits if isinstance(teacher, TeacherSignal | HiddenSignal) else None
    banned = isinstance(teacher, TeacherSignal) or (isinstance(teacher, HiddenSignal) and teacher.bias is not None)
    sums = None
    size = max(BLOCK_ELEMENTS // logits.shape[1], 1) if logits.device.type == "cpu" else len(logits)
    for start in range(0, len(logits), size):
        rows = slice(start, start + size)
        source = None if dense is None else to_at_least_fp32(dense[rows])
        if source is not None and isinstance(teacher, TeacherSignal):
            source = source.clone()  # it is overwritten, and belongs to the caller
        if source is None and teacher is not None:
            block = select_rows(teacher, rows)
            assert isinstance(block, SparseSignal)
            source = SparseSignal(block.ids, to_at_least_fp32(block.log_probs), to_at_least_fp32(block.log_residual))
        part = logits[rows]
        values = part if part.dtype == torch.float64 else part.to(torch.float32)
        block_sums = block_(values, source, targets[rows] if bool(labelled[0]) else None, at, banned)
        sums = block_sums if sums is None else sums + block_sums
        if values is not part:
            part.copy_(values)
    assert sums is not None
    return sums, logits


def _by_autograd(
    logits: Tensor, signals: Sequence[Signal], targets: Tensor, at: StepObjective, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """The same by autograd, block by block, too: a divergence keeps several tensors as large as its logits."""
    size = max(AUTOGRAD_ELEMENTS // logits.shape[1], 1) if logits.device.type == "cpu" else max(len(logits), 1)
    sums, gradient = [], torch.empty_like(logits) if wanted else None
    for start in range(0, len(logits), size):
        rows = slice(start, start + size)
        with torch.set_grad_enabled(wanted):
            leaf = to_at_least_fp32(logits[rows]).detach().requires_grad_(wanted)
            parts = distillation_loss(leaf, [select_rows(signal, rows) for signal in signals], targets[rows], at)
        if gradient is not None:
            gradient[rows] = torch.autograd.grad(parts.total, leaf)[0]
        sums.append(torch.stack([value.detach() for value in parts]))
    return torch.stack(sums).sum(0), gradient
