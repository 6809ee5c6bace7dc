"""The fastest matrix product of a device, as a measure of its peak FLOP/s."""

from __future__ import annotations

import time

import torch


def matrix_product_peak(size: int = 1024, dtype: torch.dtype = torch.float32, device: str = "cpu", tries: int = 5) -> float:
    """FLOP/s of a square matrix product on `device`: the best of a few tries, after one that warms it up."""
    a = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(tries + 1):
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best
