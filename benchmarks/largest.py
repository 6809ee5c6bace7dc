"""The largest batch that fits, and how fast it is: `python -m benchmarks.largest [--ladder llama-1b] [--stage 0] [KEY=VALUE ...]`.

One stage of a ladder, student and live teacher with random weights, trained by `models.training.loop.train` on random ids, in the precision
that `auto` takes. For each way to compute attention (`--attention`), with and without `training.recompute` and, with `--compile`,
`torch.compile` of both bodies: batches are doubled until one does not fit, or up to `--most`, then halved in between. Prints the largest
batch with
its tokens a second, share of the fastest square product in it, and peak memory. Meant for a GPU, where what does not fit says so; a
processor's memory ends otherwise, so there `--most` is required, and the peak is that of the process so far, so it never falls from
line to line.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from benchmarks.common import automatic_precision, fresh_model, machine, random_corpus
from benchmarks.peers import WARM, peak_mib
from benchmarks.step import flops_per_token, peak
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import size_of
from models.base.device import resolve_device
from models.base.interface import Interface
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.sources import live
from models.training.compiled import compile_layers
from models.training.loop import Plan, Step, train
from tasks.planning.preflight import expected_interface
from tasks.training.signals.teachers import frozen_dtype


class Way(NamedTuple):
    """Training settings of a pair."""

    attention: str
    recompute: bool
    compiled: bool


class Fit(NamedTuple):
    """A batch that fitted."""

    batch: int
    tokens_per_second: float
    peak_mib: float


def pair(ladder: Ladder, stage: int) -> tuple[Shape, Shape]:
    """Shapes of a stage's teacher and student."""
    shapes = [getattr(ladder.teacher, "shape", None), *(each.student.shape for each in ladder.stages)]
    if shapes[stage] is None:
        sys.exit(f"{ladder.name} says nothing of its teacher's shape: give teacher.shape.* of it.")
    return shapes[stage], shapes[stage + 1]


def fits(way: Way, batch: int, shapes: tuple[Shape, Shape], corpus: Corpus, interface: Interface, steps: int) -> Fit | None:
    """Train a few steps; None: the GPU has not enough memory."""
    device, moments = resolve_device("auto"), list[float]()
    settings = Training(steps=WARM + steps, batch_size=batch, learning_rate=1e-4, recompute=way.recompute, compile=way.compiled)
    plan = Plan(settings, Objective.model_validate({"alpha": 1.0}), 0, interface.vocabulary, device, automatic_precision())
    gc.collect()
    if device == "cuda":  # what an attempt before this one left
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        teacher, student = (prepared(shape, interface, way).to(device) for shape in shapes)
        teacher.to(frozen_dtype(device, automatic_precision()))
        signals = live(teacher, interface.vocabulary, automatic_precision())
        if way.compiled:
            compile_layers(teacher)
        train(
            student,
            TrainingBatches(corpus, batch, 0),
            plan,
            signals=signals,
            on_step=lambda step: moments.append(seen(step, device)),
        )
    except torch.OutOfMemoryError:
        return None
    most = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mib()
    return Fit(batch, steps * batch * interface.sequence_length / (moments[-1] - moments[WARM - 1]), most)


def seen(_: Step, device: str) -> float:
    """The moment at which a step has ended on the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def prepared(shape: Shape, interface: Interface, way: Way) -> nn.Module:
    """A model with random weights, and attention of this way."""
    model = cast(Any, fresh_model(shape, interface))
    model.set_attn_implementation(way.attention)
    return model


def largest(way: Way, most: int, *how: Any) -> Fit | None:
    """The largest batch that fits, up to `most`."""
    best, low, high = None, 0, most + 1  # `low` fits, `high` does not
    while low + 1 < high:
        batch = (low + high) // 2 if high <= most else min(2 * low or 1, most)
        found = fits(way, batch, *how)
        if found is None:
            high = batch
        else:
            low, best = batch, found
    return best


def main() -> None:
    """Search each way, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ladder", default="llama-1b")
    parser.add_argument("--stage", type=int, default=0, help="which stage's pair, from 0")
    parser.add_argument("--attention", action="append", help="sdpa, eager, flash_attention_2 ...; may be given several times")
    parser.add_argument("--compile", action="store_true", help="compiled bodies beside plain ones")
    parser.add_argument("--most", type=int, help="largest batch tried; on a GPU 4096")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a batch")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    options = parser.parse_args()
    device = resolve_device("auto")
    if options.most is None and device == "cpu":
        sys.exit("--most is required on a processor, whose memory ends without a word.")
    most, ladder = options.most or 4096, load(options.ladder, options.overrides).ladder
    shapes, interface = pair(ladder, options.stage), replace(expected_interface(ladder, None), end_id=0, pad_id=0)
    sizes = [size_of(shape, interface) for shape in shapes]
    top, work = peak(automatic_precision(), device), flops_per_token(sizes, 1)
    of_pair = f"{sizes[0].parameters:,} -> {sizes[1].parameters:,} parameters"
    print(f"{ladder.name}: {of_pair}, length {interface.sequence_length}, {automatic_precision()}")
    print(f"{machine(device)}; fastest square product {top / 1e12:.1f} TFLOP/s\n")
    print(f"{'attention':20}{'recompute':>10}{'compiled':>9}{'batch':>7}{'tokens/s':>11}{'of peak':>9}{'peak, MiB':>11}")
    with tempfile.TemporaryDirectory(prefix="ladder-largest-") as name:
        corpus = random_corpus(Path(name), interface, max(1_000_000, 2 * most * interface.sequence_length))
        compiled = (False, True) if options.compile else (False,)
        for way in itertools.starmap(Way, itertools.product(options.attention or ["sdpa"], (False, True), compiled)):
            found = largest(way, most, shapes, corpus, interface, options.steps)
            line = f"{way.attention:20}{'yes' if way.recompute else 'no':>10}{'yes' if way.compiled else 'no':>9}"
            if found is None:
                print(f"{line}  not even one sequence fits", flush=True)
                continue
            share = found.tokens_per_second * work / top
            print(f"{line}{found.batch:>7}{found.tokens_per_second:>11,.0f}{share:>9.1%}{found.peak_mib:>11,.0f}", flush=True)


if __name__ == "__main__":
    main()
