"""Cost of `accelerate` per step: `python -m benchmarks.accelerated [--steps 30] [--repeats 5]`.

The same steps of a small language model, on random ids, through `accelerate` (prepare, backward, clip_grad_norm_), as the training loop
takes them, and by PyTorch alone, in alternation. Several processes train through PyTorch's own DistributedDataParallel either way.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.common import automatic_precision, machine, spread
from models.base.device import resolve_device
from models.training.loop import accelerator_for

WARM = 3
SIZES: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 232, "num_hidden_layers": 3, "num_attention_heads": 3, "vocab_size": 258}
Step = Callable[[Tensor], float]


def student() -> nn.Module:
    """A student of 0.4M parameters."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True, use_cache=False))


def accelerated(device: str, precision: str) -> Step:
    """A step through accelerate; gives the loss."""
    accelerator, model = accelerator_for(device, precision), student()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), fused=True))

    def step(ids: Tensor) -> float:
        loss = model(input_ids=ids, labels=ids).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def plain(device: str, precision: str) -> Step:
    """A step by PyTorch alone; gives the loss."""
    model = student().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step(ids: Tensor) -> float:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = cast(Tensor, model(input_ids=ids, labels=ids).loss)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def main() -> None:
    """Take the steps in alternation, print milliseconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device, precision = resolve_device("auto"), automatic_precision()
    ids = torch.randint(0, SIZES["vocab_size"], (16, 192), generator=torch.Generator().manual_seed(0)).to(device)
    ways = {"accelerate": accelerated(device, precision), "PyTorch alone": plain(device, precision)}
    times, losses = {name: list[float]() for name in ways}, {name: list[float]() for name in ways}
    for name, step in ways.items():
        losses[name] += [step(ids) for _ in range(WARM)]
    for _ in range(options.repeats):
        found = {name: list[float]() for name in ways}
        for _ in range(options.steps):
            for name, step in ways.items():
                began = time.perf_counter()
                losses[name].append(step(ids))
                found[name].append(time.perf_counter() - began)
        for name, seconds in found.items():
            times[name].append(1e3 * float(np.median(seconds)))
    equal = "equal" if len(set(map(tuple, losses.values()))) == 1 else "NOT equal"
    print(f"batch 16 x 192, {precision}, {machine(device)}; the losses are {equal}")
    for name, each in times.items():
        print(f"{name:14} {spread(each, '{:.1f}')} ms a step")
    print(f"ratio {spread([a / b for a, b in zip(*times.values(), strict=True)], '{:.3f}')}")


if __name__ == "__main__":
    main()
