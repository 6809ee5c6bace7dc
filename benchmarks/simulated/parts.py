"""A signal cache of many small parts: commit, open and look up by the real code.

A part is three files, so a million parts cannot be written here. Above `REAL` parts the same files are taken again and again: every part is
read and mapped as often as it is named.
"""

from __future__ import annotations

import hashlib
import resource
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.simulated.curves import Point, measure
from conf.errors import LadderError
from models.signals.cache import KEY, Keys, SignalCache
from models.signals.codec import Coding

REAL = 1000
EXAMPLES = 4  # of a part
LOOKED_UP = 64  # keys at once: a batch
CODING = Coding("full", 2)
IDENTITY = {"signal": "full", "vocabulary": 2, "size": 0, "seed": 0}


class Caches(NamedTuple):
    """Curves of a cache's operations, and the limit that ended them."""

    curves: dict[str, list[Point]]
    memory: dict[int, float]  # parts -> MiB of the process that an open cache with its index takes
    limit: str


def keys_of_part(number: int) -> Keys:
    """Keys of the examples of a simulated part."""
    digests = [hashlib.blake2b(f"{number}-{i}".encode(), digest_size=16).digest() for i in range(EXAMPLES)]
    return np.frombuffer(b"".join(digests), dtype=KEY)


def add_part(cache: SignalCache, number: int) -> None:
    """Commit a part of the smallest records."""
    cache.append(keys_of_part(number), [bytes(4)] * EXAMPLES, EXAMPLES, 0.0, "simulated")


def _add_and_ask(cache: SignalCache, number: int) -> None:
    add_part(cache, number)
    assert not cache.missing(keys_of_part(number)).any()


def caches(base: Path, sizes: Sequence[int]) -> Caches:
    """Operations on caches of `sizes` parts, rising."""
    base.mkdir(parents=True, exist_ok=True)
    curves, memory, limit, written = defaultdict[str, list[Point]](list), dict[int, float](), "", 0
    cache = SignalCache(base, CODING, [])
    for n in (size for size in sizes if size <= REAL):
        for number in range(written, n):
            add_part(cache, number)
        written = n + 1
        cache.missing(keys_of_part(0))  # with an index, as a dump has one
        curves["commit another part, look its examples up"].append(measure(n, [lambda n=n: _add_and_ask(cache, n)]))
        curves["open: read all manifests, check all hashes"].append(measure(n, [lambda: SignalCache.open(base, "", IDENTITY, print)]))
    first = SignalCache.open(base, "", IDENTITY, print).parts[: max(size for size in sizes if size <= REAL)]
    wanted = np.concatenate([keys_of_part(i * len(first) // LOOKED_UP) for i in range(LOOKED_UP)])[:LOOKED_UP]
    for n in sizes:
        before, many = _resident(), [replace(first[i % len(first)]) for i in range(n)]
        try:
            curves["map the parts"].append(measure(n, [lambda many=many: SignalCache(base, CODING, many)]))
            cache = SignalCache(base, CODING, many)
        except (OSError, ValueError, MemoryError, LadderError) as error:
            limit = f"{n:,} parts cannot be mapped by one process: {error} vm.max_map_count is {_most_maps()}"
            curves["map the parts"].pop() if curves["map the parts"][-1].n == n else None
            cache = SignalCache(base, CODING, [])
            cache.parts = many  # the index needs no mapping
        curves["index: read and sort all keys"].append(measure(n, [lambda cache=cache: cache.missing(wanted)]))
        curves["look up a batch again"].append(measure(n, [lambda cache=cache: cache.missing(wanted)] * 5))
        memory[n] = max(_resident() - before, 0) / 2**20
    return Caches(dict(curves), memory, limit)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def _most_maps() -> str:
    path = Path("/proc/sys/vm/max_map_count")
    return f"{int(path.read_text(encoding='utf-8')):,}" if path.is_file() else "unknown"
