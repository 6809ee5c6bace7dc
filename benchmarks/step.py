"""Speed of a training step, and its share of the machine's peak arithmetic.

    python -m benchmarks.step [--steps 20] [--repeats 3] [KEY=VALUE ...]

For the teacher and every stage of `python-stdlib`: tokens a second of `models.training.loop.train`, the stage with its live teacher, on
random ids and without validation or checkpoints; and the share of what a large square matrix product of the training's precision
reaches on this machine. Operations are those of matrix products as `models.architectures.shapes.count` counts them: three forward
passes for the model that is trained, one for its teacher. Repeats are interleaved, so that a machine that slows down slows all rows alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import fresh_model, machine, plan_for, random_corpus, rungs, spread
from conf.loading.load import load
from conf.schema.ladder import Ladder
from models.architectures.shapes import Size, count
from models.base.device import use_threads
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.sources import live
from models.speed.matmul import matrix_product_peak
from models.training.loop import Step, train
from tasks.planning.preflight import expected_interface

WARM = 3  # steps that do not count: allocation, first touch
PEAK_SIZES = (1024, 2048, 4096)


def train_rung(ladder: Ladder, index: int, corpus: Corpus, steps: int, on_step: Callable[[Step], None]) -> int:
    """Train rung `index` (0: the teacher) for so many steps, with its live teacher; returns the tokens of a step."""
    every = rungs(ladder)
    _, shape, training, objective = every[index]
    interface = expected_interface(ladder, corpus)
    plan = plan_for(ladder, training.model_copy(update={"steps": steps}), objective, interface.vocabulary)
    signals = live(fresh_model(every[index - 1][1], interface).to(plan.device), plan.vocabulary) if index else None
    train(fresh_model(shape, interface), TrainingBatches(corpus, training.batch_size, 0), plan, signals=signals, on_step=on_step)
    return training.batch_size * interface.sequence_length


def tokens_per_second(ladder: Ladder, index: int, corpus: Corpus, steps: int) -> float:
    """Train rung `index` for `WARM + steps` steps; returns its speed in the last `steps`."""
    moments: list[float] = []
    tokens = train_rung(ladder, index, corpus, WARM + steps, lambda _: moments.append(time.perf_counter()))
    return steps * tokens / (moments[-1] - moments[WARM - 1])


def peak(precision: str, device: str) -> float:
    """FLOP/s of the fastest of a few square matrix products in the training's precision."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return max(matrix_product_peak(size, dtype, device) for size in PEAK_SIZES)


def flops_per_token(sizes: list[Size], index: int) -> float:
    """Operations that a token costs: forward and backward of the model, forward of its live teacher."""
    own = 3 * sizes[index].forward_flops / sizes[index].tokens
    return own + (sizes[index - 1].forward_flops / sizes[index - 1].tokens if index else 0.0)


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each model in each repeat")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    options = parser.parse_args()
    began = time.monotonic()
    ladder = load("python-stdlib", options.overrides).ladder
    use_threads(ladder)
    names = [rung[0] for rung in rungs(ladder)]
    interface = replace(expected_interface(ladder, None), end_id=0, pad_id=0)
    sizes = [count(fresh_model(rung[1], interface), interface.sequence_length) for rung in rungs(ladder)]
    plan = plan_for(ladder, rungs(ladder)[0][2], None, interface.vocabulary)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = random_corpus(Path(folder), interface)
        for _ in range(options.repeats):
            peaks.append(peak(plan.precision, plan.device))
            for index, name in enumerate(names):
                speeds[name].append(tokens_per_second(ladder, index, corpus, options.steps))
    top = statistics.median(peaks)
    print(f"python-stdlib, {machine(plan.device)}, {plan.precision}")
    print(f"{options.repeats} interleaved repeats of {options.steps} steps; median (least - most)")
    print(f"matrix-product peak: {spread([value / 1e9 for value in peaks])} GFLOP/s\n")
    print(f"{'model':<10}{'parameters':>11}  {'tokens/s':<28}{'GFLOP/s':>8}  share of peak")
    for index, name in enumerate(names):
        rates = [speed * flops_per_token(sizes, index) for speed in speeds[name]]
        shares = spread([rate / top for rate in rates], "{:.1%}")
        print(f"{name:<10}{sizes[index].parameters:>11,}  {spread(speeds[name]):<28}{statistics.median(rates) / 1e9:>8.0f}  {shares}")
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
