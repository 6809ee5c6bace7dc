"""Cost of waiting threads, alone on a machine and beside other work: `python -m benchmarks.busy [--busy 6] [--turns 5000 20000]`.

Trains a stage of `python-stdlib` with its live teacher, each kind of waiting in a process of its own: one thread; all threads with GCC's
own waiting, with Ladder's (`conf.native`), and with none (`OMP_WAIT_POLICY=passive`). The processes take turns of a few steps, in a random
order in each round, and stand still meanwhile: a round takes some seconds, in which a machine that others share hardly changes. `--busy N`
starts N processes that compute all the time beside them; `--turns` measures waits of other numbers of turns, too. Prints tokens a second,
as ratios to GCC's own waiting, paired by round, their geometric mean with its 95 % interval, and processor seconds of a round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import machine, random_corpus, rungs, spread
from benchmarks.step import train_rung
from conf.loading.load import load
from conf.native import OPENMP
from models.base.statistics import interval
from models.training.loop import Step
from tasks.planning.preflight import expected_interface

SETTING = "GOMP_SPINCOUNT"
OWN = "GCC's own waiting"
OURS = f"{SETTING}={OPENMP[SETTING]} (Ladder's)"
KINDS = {"one thread": {"OMP_NUM_THREADS": "1"}, OWN: {SETTING: "300000"}, OURS: OPENMP, "no waiting": {"OMP_WAIT_POLICY": "passive"}}
VARIABLES = (SETTING, "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
BUSY = "while True: pass"
COLD = 2  # first steps of a turn, which do not count: the other processes have had the caches


def take_turns(stage: int, steps: int, turns: int) -> None:
    """Train in this process; at each line of standard input a turn, whose speed and processor seconds are printed."""
    ladder = load("python-stdlib").ladder
    interface = replace(expected_interface(ladder, None), end_id=0, pad_id=0)
    tokens = steps * rungs(ladder)[stage][2].batch_size * interface.sequence_length
    began = [0.0, 0.0]

    def on_step(step: Step) -> None:
        done = step.step % (COLD + steps)
        if done == COLD:
            began[:] = time.perf_counter(), time.process_time()
        elif done == 0:
            print(json.dumps({"speed": tokens / (time.perf_counter() - began[0]), "processor": time.process_time() - began[1]}), flush=True)
            if not sys.stdin.readline():
                sys.exit()

    with tempfile.TemporaryDirectory() as folder:
        train_rung(ladder, stage, random_corpus(Path(folder), interface), (COLD + steps) * turns, on_step)


def started(variables: Mapping[str, str], options: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that takes turns, after its first one."""
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES} | dict(variables)
    measure = ["--measure", "--stage", str(options.stage), "--steps", str(options.steps), "--repeats", str(options.repeats)]
    command = [sys.executable, "-m", "benchmarks.busy", *measure]
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    return process


def turn(process: subprocess.Popen[str]) -> dict[str, float]:
    """One turn of a process."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> None:
    """Measure in alternation, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside the training")
    parser.add_argument("--stage", type=int, default=2, help="0: the teacher; 1 to 3: a stage")
    parser.add_argument("--steps", type=int, default=15, help="timed steps of each turn")
    parser.add_argument("--repeats", type=int, default=20, help="turns of each kind, two or more")
    parser.add_argument("--turns", type=int, nargs="+", default=[], help="other numbers of turns that a thread waits")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        take_turns(options.stage, options.steps, options.repeats + 1)
        return
    kinds = KINDS | {f"{SETTING}={turns}": {SETTING: str(turns)} for turns in options.turns}
    print(f"stage {options.stage} of python-stdlib, turns of {options.steps} steps, {options.busy} busy processes, {machine('cpu')}")
    print(f"load before: {os.getloadavg()[0]:.1f}; {torch.get_num_threads()} threads but in the first row", flush=True)
    processes = {kind: started(variables, options) for kind, variables in kinds.items()}
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.busy)]
    try:
        found = [{kind: turn(processes[kind]) for kind in random.sample(list(kinds), len(kinds))} for _ in range(options.repeats)]
    finally:
        for other in others:
            other.kill()
        for process in processes.values():
            process.communicate()
    for kind in kinds:
        speed = spread([each[kind]["speed"] for each in found])
        ratios = interval([math.log(each[kind]["speed"] / each[OWN]["speed"]) for each in found])
        processor = spread([each[kind]["processor"] for each in found], "{:.1f}")
        mean, low, high = (math.exp(value) for value in (ratios.mean, ratios.low, ratios.high))
        print(f"{kind:32} {speed} tokens/s; {mean:.3f} ({low:.3f} to {high:.3f}) of GCC's own; {processor} s of processors")


if __name__ == "__main__":
    main()
