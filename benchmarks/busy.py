"""Cost of waiting threads, alone on a machine and beside other work: `python -m benchmarks.busy [--busy 6] [--turns 5000 20000]`.

Trains a stage of `python-stdlib` with its live teacher, each measurement in a process of its own, in alternation: one thread; all
threads with GCC's own waiting, with Ladder's (`conf.native`), and with none (`OMP_WAIT_POLICY=passive`). `--busy N` starts N processes
that compute all the time beside them; `--turns` measures waits of other numbers of turns, too. Prints tokens a second, as ratios to
GCC's own waiting, paired by repeat, and processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import machine, random_corpus, spread
from benchmarks.step import WARM, tokens_per_second
from conf.loading.load import load
from conf.native import OPENMP
from tasks.planning.preflight import expected_interface

SETTING = "GOMP_SPINCOUNT"
OWN = "GCC's own waiting"
OURS = f"{SETTING}={OPENMP[SETTING]} (Ladder's)"
KINDS = {"one thread": {"OMP_NUM_THREADS": "1"}, OWN: {SETTING: "300000"}, OURS: OPENMP, "no waiting": {"OMP_WAIT_POLICY": "passive"}}
VARIABLES = (SETTING, "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
BUSY = "while True: pass"


def measured(stage: int, steps: int) -> dict[str, float]:
    """Train in this process; tokens a second, and the processor seconds of all steps."""
    ladder = load("python-stdlib").ladder
    interface = replace(expected_interface(ladder, None), end_id=0, pad_id=0)
    with tempfile.TemporaryDirectory() as folder:
        corpus, began = random_corpus(Path(folder), interface), time.process_time()
        return {"speed": tokens_per_second(ladder, stage, corpus, steps), "processor": time.process_time() - began}


def in_process(variables: Mapping[str, str], stage: int, steps: int) -> dict[str, float]:
    """The same in a process of its own."""
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES} | dict(variables)
    command = [sys.executable, "-m", "benchmarks.busy", "--measure", "--stage", str(stage), "--steps", str(steps)]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Measure in alternation, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside the training")
    parser.add_argument("--stage", type=int, default=2, help="0: the teacher; 1 to 3: a stage")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--turns", type=int, nargs="+", default=[], help="other numbers of turns that a thread waits")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.stage, options.steps)))
        return
    kinds = KINDS | {f"{SETTING}={turns}": {SETTING: str(turns)} for turns in options.turns}
    print(f"stage {options.stage} of python-stdlib, {options.steps} steps after {WARM}, {options.busy} busy processes, {machine('cpu')}")
    print(f"load before: {os.getloadavg()[0]:.1f}; {torch.get_num_threads()} threads but in the first row", flush=True)
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.busy)]
    try:
        found = [
            {kind: in_process(variables, options.stage, options.steps) for kind, variables in kinds.items()} for _ in range(options.repeats)
        ]
    finally:
        for other in others:
            other.kill()
    for kind in kinds:
        speed = spread([each[kind]["speed"] for each in found])
        ratio = spread([each[kind]["speed"] / each[OWN]["speed"] for each in found], "{:.2f}")
        processor = spread([each[kind]["processor"] for each in found], "{:.1f}")
        print(f"{kind:24} {speed} tokens/s; {ratio} of GCC's own; {processor} s of processors")


if __name__ == "__main__":
    main()
