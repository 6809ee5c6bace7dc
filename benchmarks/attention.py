"""Sizes at which attention's gradient is faster in single precision: `python -m benchmarks.attention [--tokens 6144] [--repeats 9]`.

Backward pass of causal attention in bf16 on a processor, PyTorch's own beside ours, in turns, four heads, as many tokens at each length.
Prints the median milliseconds of both and the median of their ratios; `LIMIT` in `models/architectures/attention.py` comes from this table.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.common import machine, spread
from models.architectures.attention import LIMIT, _Attention

SIZES, LENGTHS, HEADS = (16, 32, 64, 96, 128), (64, 128, 192, 256, 512, 1024), 4


def backward(found: Tensor, inputs: list[Tensor], gradient: Tensor) -> float:
    """Milliseconds of a gradient."""
    began = time.perf_counter()
    torch.autograd.grad(found, inputs, gradient, retain_graph=True)
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Measure every size of a head at every length, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=6144, help="tokens of a batch")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each side")
    options = parser.parse_args()
    print(f"{options.tokens} tokens, {HEADS} heads, bf16, {machine('cpu')}")
    print(f"{'head':>4} {'length':>6}  {'bf16, ms':22} {'single, ms':22} {'sooner':22} chosen")
    for size in SIZES:
        for length in LENGTHS:
            shape = (max(1, options.tokens // length), length, HEADS, size)
            query, key, value = inputs = [torch.randn(shape).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3)]
            gradient = torch.randn(shape).bfloat16().transpose(1, 2)
            plain = scaled_dot_product_attention(query, key, value, is_causal=True)
            single = _Attention.apply(query, key, value, True, None)
            times = [(backward(plain, inputs, gradient), backward(single, inputs, gradient)) for _ in range(options.repeats + 1)][1:]
            columns = (*(spread([pair[side] for pair in times], "{:.1f}") for side in (0, 1)), spread([a / b for a, b in times], "{:.2f}"))
            print(
                f"{size:>4} {length:>6}  " + " ".join(f"{each:22}" for each in columns),
                "single" if size * length <= LIMIT else "bf16",
                flush=True,
            )


if __name__ == "__main__":
    main()
