"""On-policy steps beside TRL's, in one run: `python -m benchmarks.on_policy [--pair bytes|smollm2] [--steps 8] [--repeats 3] [--beta 1]`.

The pairs of `benchmarks.peers`: the student continues the first part of each window to its end, the teacher scores these ids, and the
student learns from them. Sides: TRL's GKDTrainer, with whole batches and in two micro-batches, which saves memory, and its
DistillationTrainer, whose loss is chunked; Ladder with the same work (a batch is written for every step, by the weights of that step), the
same in two micro-batches (`training.accumulation: 2`), and with `buffer: 4` (four batches are written at once). Every measurement is a
process of its own, the sides in alternation. Tokens a second are those that are written and learned from, by the clock and by processor
time, which with one thread (OMP_NUM_THREADS=1) is the fairer one on a busy machine; peak memory is the process's.

No text ends before the window does. TRL is installed in an environment of its own (`--peers FOLDER`, made where it is not there).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import automatic_precision, machine, spread
from benchmarks.peers import PAIRS, environment_of_peers, peak_mib, write_pair
from conf.native import native_settings
from conf.schema.stage.objective import Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model
from models.base.device import resolve_device
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.sources import live
from models.training.loop import Plan, Step, train
from models.training.on_policy import OnPolicyBatches

PROMPTS = {"bytes": 64, "smollm2": 128}  # ids of each window that are given
BUFFERS = {"ladder": 1, "halves": 1, "buffer": 4}  # of our sides
MICRO_BATCHES = {"gkd-halves": 2, "halves": 2}
SIDES = ("gkd", "gkd-halves", "distillation", *BUFFERS)
WARM = 4  # steps of ours that do not count: one buffer at least


def ours(pair: str, folder: Path, side: str, steps: int, precision: str, beta: float) -> dict[str, float]:
    """Train a few steps with Ladder's loop; the figures of this process."""
    batch, _ = PAIRS[pair]
    device, buffer, moments = resolve_device("auto"), BUFFERS[side], list[tuple[float, float]]()
    batches = TrainingBatches(Corpus(folder / "corpus", pair), batch, 0)
    batches.info = replace(batches.info, end_id=None)
    source = live(load_model(folder / "teacher", "causal-lm").to(device), batches.info.vocabulary, precision)
    student = load_model(folder / "student", "causal-lm")
    signals = Signals.model_validate({"source": "on-policy", "buffer": buffer, "prompt": PROMPTS[pair]})
    training = Training(steps=WARM + steps, batch_size=batch, accumulation=MICRO_BATCHES.get(side, 1), learning_rate=1e-4)
    kind = {0.0: "forward-kl", 1.0: "reverse-kl"}.get(beta, "jsd")
    objective = Objective.model_validate({"alpha": 1.0, "kind": kind, "beta": beta})
    before = peak_mib()

    def on_step(step: Step) -> None:
        moments.append((time.perf_counter(), time.process_time()))

    own = OnPolicyBatches(batches, student.to(device), signals, training.steps, precision)
    plan = Plan(training, objective, 0, batches.info.vocabulary, device, precision)
    train(student, own, plan, signals=source, on_step=on_step)
    each = np.diff(moments[WARM - 1 :], axis=0).reshape(-1, buffer, 2).mean(1)  # a step's share of its buffer
    seconds, busy = (steps * np.median(each, axis=0)).tolist()
    return {"seconds": seconds, "busy": busy, "before_mib": before, "peak_mib": peak_mib()}


def measure(pair: str, folder: Path, side: str, steps: int, python: Path, precision: str, beta: float) -> dict[str, float]:
    """One side, once, in a process of its own."""
    batch, length = PAIRS[pair]
    own = native_settings({}) if side in BUFFERS else {}  # the other side runs as its users run it
    env = {key: value for key, value in os.environ.items() if key not in native_settings({})}
    env = {**env, **own, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command: list[object] = [sys.executable, "-m", "benchmarks.on_policy", "--pair", pair, "--side", side, "--folder", folder]
    if side not in BUFFERS:
        command = [python, Path(__file__).with_name("on_policy_trl.py"), side.partition("-")[0], folder / "teacher", folder / "student"]
        command += [folder / "stream.npy", "--length", length, "--prompt", PROMPTS[pair], "--batch-size", batch]
        command += ["--accumulation", MICRO_BATCHES.get(side, 1)]
    command += ["--steps", steps, "--precision", precision, "--beta", beta]
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    tokens = steps * batch * (length - PROMPTS[pair])
    return {**found, "speed": tokens / found["seconds"], "busy_speed": tokens / found["busy"]}


def main() -> None:
    """Prepare, measure in alternation, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", choices=[*PAIRS], action="append", help="one pair only")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a measurement, a multiple of 4")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument("--beta", type=float, default=1.0, help="0: forward KL, 1: reverse KL, between them JSD")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="environment of the peers")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="of all sides; by default that which `auto` takes here")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps % (most := max(BUFFERS.values())):
        parser.error(f"argument --steps: got {options.steps}; allowed: a multiple of {most}, the largest buffer")
    precision = options.precision or automatic_precision()
    if options.side:
        print(json.dumps(ours(options.pair[0], options.folder, options.side, options.steps, precision, options.beta)))
        return
    python = environment_of_peers(options.peers.absolute())
    for pair in options.pair or PAIRS:
        with tempfile.TemporaryDirectory(prefix="ladder-on-policy-") as name:
            folder = Path(name)
            words = f"batch {' x '.join(map(str, PAIRS[pair]))}, prompts of {PROMPTS[pair]}, beta {options.beta:g}, {precision}"
            print(f"\n{pair}: {words}, {machine(resolve_device('auto'))}", flush=True)
            write_pair(pair, folder, options.steps)
            found = [
                {side: measure(pair, folder, side, options.steps, python, precision, options.beta) for side in SIDES}
                for _ in range(options.repeats)
            ]
        for side in SIDES:
            words = [f"{side:13}"]
            for name, figure in (("speed", "tokens/s"), ("busy_speed", "tokens a processor-second"), ("peak_mib", "MiB at its peak")):
                ratio = spread([each[side][name] / each["gkd"][name] for each in found], "{:.2f}")
                words.append(f"{spread([each[side][name] for each in found])} {figure}, {ratio} of GKD's;")
            print(*words, flush=True)


if __name__ == "__main__":
    main()
