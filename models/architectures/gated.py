"""Gated feed-forward parts that keep less for their gradient.

A SiLU-gated part as transformers writes it keeps four tensors of its own width for the gradient: both projections, `silu(gate)` and the
product. Here it keeps the two projections. The operations and their order stay the same, and so do the weights, to the last bit. A
model is switched for the length of a training and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}  # parts of `down(silu(gate(x)) * up(x))`
SILU = ("SiLU", "SiLUActivation")


class _GatedDown(torch.autograd.Function):
    """`(silu(gate) * up) @ weight.T` for (..., F), (..., F) and (H, F), which keeps its three arguments."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return functional.linear(functional.silu(gate).mul_(up), weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        rows, silu = gradients[0].flatten(0, -2), functional.silu(gate)
        of_weight = rows.t().mm((silu * up).flatten(0, -2)) if ctx.needs_input_grad[2] else None
        of_product = rows.mm(weight).view_as(gate)
        of_up = silu.mul_(of_product)
        return torch.ops.aten.silu_backward(of_product.mul_(up), gate), of_up, of_weight


def _forward(part: Any, states: Tensor) -> Any:
    gate, up = part.gate_proj(states), part.up_proj(states)
    if not torch.is_grad_enabled():
        return part.down_proj(functional.silu(gate).mul_(up))  # as it is then: a student that writes packs its matrices
    return _GatedDown.apply(gate, up, part.down_proj.weight.to(gate.dtype))  # half precision under autocast


@contextmanager
def lean_gates(model: nn.Module) -> Iterator[None]:
    """Switch a model's SiLU-gated parts; parts of other kinds, and those that something else has wrapped, stay as they are."""
    switched = [part for part in model.modules() if _is_gated(part)]
    for part in switched:
        part.forward = partial(_forward, part)
    try:
        yield
    finally:
        for part in switched:
            del part.forward


def _is_gated(part: nn.Module) -> bool:
    """Whether a part is `down(silu(gate(x)) * up(x))` with a plain linear layer at its end, and nothing else."""
    children = dict(part.named_children())
    if set(children) != GATED or type(children["act_fn"]).__name__ not in SILU or "forward" in vars(part):
        return False
    down = cast(Any, children["down_proj"])
    return type(down) is nn.Linear and down.bias is None and not down._forward_hooks and not down._forward_pre_hooks
