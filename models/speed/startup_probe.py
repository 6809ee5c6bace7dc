"""Measure time and memory of a model's start, in a process of its own.

`python -m models.speed.startup_probe` prints them as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def peak_resident() -> int:
    """Most resident memory of this process so far, in bytes.

    Read from /proc where it exists: on Linux the figure of `getrusage` begins at the size of the parent process.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(folder: str, workload: str, dtype: str, device: str, threads: str, batch_size: str, tokens: str, new_tokens: str) -> None:
    """Load a model and have it answer once."""
    began = time.perf_counter()
    import torch

    from models.architectures.checkpoint import load_model, skeleton
    from models.speed.latency import DTYPES, RequestShape, measure_rounds

    skeleton(Path(folder), workload)  # transformers imports a model's code when it is first used
    torch.set_num_threads(int(threads))
    imported, before = time.perf_counter(), peak_resident()
    model = load_model(Path(folder), workload, dtype=DTYPES[dtype]).to(device).eval()
    loaded = time.perf_counter()
    measure_rounds({"": model}, workload, [int(batch_size)], RequestShape(int(tokens), int(new_tokens)), rounds=1, warmup=0)
    answered = time.perf_counter()
    figures = {
        "import_seconds": imported - began,
        "load_seconds": loaded - imported,
        "first_seconds": answered - loaded,
        "peak_bytes": peak_resident(),
        "library_bytes": before,
        "gpu_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
