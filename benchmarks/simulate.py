"""Costs beyond one machine: how plans, stores, caches and workers grow, in one command of about five minutes on one core.

    python -m benchmarks.simulate [--quick] [--parts plans stores signals workers locks]

- plans: `ladder plan` of ladders of 1, 10 and 100 stages.
- stores: look-ups, lists and cleaning beside 10 to 10,000 results and as many runs.
- signals: a cache of 100 to 100,000 parts, and what a million would take.
- workers: goodput of 1 to 1,000 workers by an event simulation, with stragglers, failures, checkpoints and restarts.
- locks: as many processes that wait for one result.

Plans, stores and signals run the real code, on records as it writes them; workers and locks are simulated clocks whose laws stand in
`benchmarks/simulated/cluster.py`. Each table fits the exponent of growth, a straight line through log n and log seconds, over all sizes and
over the last two; files opened and folder entries listed are counted exactly, and decide first what is called linear. `--quick` takes
smaller sizes. Seconds are those of a core: what waits for the disk, or for other work on the machine, is not in them.
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import machine
from benchmarks.simulated import cluster
from benchmarks.simulated.curves import table
from benchmarks.simulated.parts import caches
from benchmarks.simulated.planning import plans
from benchmarks.simulated.storage import stores
from models.base.files import file_sha256

PARTS = ("plans", "stores", "signals", "workers", "locks")
SIZES = {
    "plans": ((1, 10, 100), (1, 4, 16)),
    "stores": ((10, 100, 1000, 10_000), (10, 40, 160)),
    "signals": ((100, 1000, 10_000, 100_000), (10, 40, 160)),
    "workers": ((1, 8, 64, 256, 1000), (1, 8, 64)),
    "locks": ((1, 10, 100, 1000), (1, 10, 100)),
}
STEPS = (11_400, 500)  # of the simulated training
MILLION = 1_000_000  # parts of a cache
HASHED = 64 * 2**20  # bytes


def verify_seconds(folder: Path, size: float) -> float:
    """Seconds of a core in which the store verifies a result of so many bytes, by the speed of hashing here."""
    path = folder / "hashed"
    path.write_bytes(bytes(HASHED))
    began = time.process_time()
    file_sha256(path)
    return (time.process_time() - began) / HASHED * size


def report(part: str, quick: bool, base: Path) -> Iterator[str]:
    """Lines of one part."""
    sizes = SIZES[part][quick]
    if part == "plans":
        yield table("plans", plans(base, sizes))
    elif part == "stores":
        yield table("results and runs", stores(base, sizes))
    elif part == "signals":
        found = caches(base / "cache", sizes)
        yield table("parts of a cache", found.curves)
        index = found.curves["index: read and sort all keys"][-1]
        yield f"\nThe index of {MILLION:,} parts would take {index.seconds * MILLION / index.n:,.0f} s by that line."
        memory = ", ".join(f"{n:,} parts {mib:,.1f} MiB" for n, mib in found.memory.items())
        yield f"\nMemory of the open cache with its index: {memory}."
        if found.limit:
            yield f"Limit: {found.limit}."
    elif part == "workers":
        constants = (
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in asdict(cluster.Law()).items()
        )
        yield f"Constants: {', '.join(constants)}.\n"
        yield cluster.workers_table(sizes, STEPS[quick], cluster.LAWS)[0]
    else:
        seconds = {size: verify_seconds(base, size) for size in (1e6, 120e6, 1.2e9)}
        holds = {f"a verified result of {size / 1e6:,g} MB, {hold:.3f} s": hold for size, hold in seconds.items()}
        yield cluster.queues(sizes, holds)[0]


def main() -> None:
    """Print every part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"{machine('cpu')}; seconds of a core, without waiting for the disk.")
    began = time.monotonic()
    for part in options.parts:
        begun = time.process_time()
        print(f"\n## {part}\n")
        with tempfile.TemporaryDirectory(prefix="ladder-simulate-") as name:
            for line in report(part, options.quick, Path(name)):
                print(line, flush=True)
        print(f"\n{time.process_time() - begun:.0f} s of one core.")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    command = f"python -m benchmarks.simulate{' --quick' if options.quick else ''}"
    print(f"\n{time.monotonic() - began:.0f} s in all, at most {most:,.0f} MiB (`{command}`).")


if __name__ == "__main__":
    main()
