"""Lines and sentences of held-out texts that stand in the training texts too.

Equal documents are always in one split, near duplicates need not be: they share lines. Lines are sampled by a hash of their own, the
same on both sides, so that the memory does not grow with the corpus and the share of the sample is that of all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

LEAST = 24  # bytes of a line that counts: shorter ones are alike by chance
SAMPLED = 1 << 18  # lines that are looked at, about
USUAL = 40  # bytes of a line, by which that number is met


def sampling_rate(size: int) -> float:
    """Share of lines that are looked at in texts of `size` bytes."""
    return min(1.0, SAMPLED * USUAL / max(size, 1))


def line_hashes(texts: Sequence[str], rate: float) -> NDArray[np.uint64]:
    """Hashes of the sampled lines and sentences, without regard to case and surrounding space; repeated ones as often as they occur."""
    limit = int(rate * 2**32)
    lines = "\n".join(texts).lower().replace(". ", "\n").encode().split(b"\n")
    sampled = [line for line in map(bytes.strip, lines) if len(line) >= LEAST and zlib.crc32(line) < limit]
    return np.frombuffer(b"".join(blake2b(line, digest_size=8).digest() for line in sampled), dtype=np.uint64)


def shared_lines(held_out: NDArray[np.uint64], train: NDArray[np.uint64]) -> float | None:
    """Share of the held-out lines that stand among the training lines too; None without any line."""
    return float(np.isin(held_out, train).mean()) if len(held_out) else None
