"""Measurements of the 1B ladder on a GPU: at most eight minutes, without network.

    python -m benchmarks.gpu [--minutes 8]
    python -m benchmarks.gpu --toy          # the same with small shapes, on a processor

1. Training from labels alone, with the live teacher and with cached answers, for every stage of `llama-1b`, random weights and ids: batches
   are doubled while they fit and gain; tokens a second, share of the fastest square product here (and of the data sheet's peak, MFU, where
   it is known), peak memory.
2. One live pair with `torch.compile`, in a process of its own that is ended after its share of the time: the first stage's, and of the toy
   the last one's.
3. A whole ladder: a teacher of the root's shape trained for a minute on text that the benchmark makes, its answers cached, three students,
   reports and all: seconds, losses, the cache's bytes and speed.

Prints Markdown for docs/performance.md. Every part has its share of the time, and says so where that ended it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import automatic_precision, machine, random_corpus
from benchmarks.largest import Way, pair, prepared, seen
from benchmarks.peers import WARM, peak_mib
from benchmarks.step import peak
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import Size, size_of
from models.base.device import resolve_device
from models.base.interface import Interface
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.losses.loss import SparseSignal
from models.signals.sources import SignalSource, live
from models.training.compiled import compile_layers
from models.training.loop import Plan, train
from tasks.planning.preflight import expected_interface
from tasks.records.run import RunRecord
from tasks.training.signals.teachers import frozen_dtype

KINDS = ("labels", "live", "cached")
LISTED = 50  # ids of a cached answer
STEPS = 5
LARGEST = {False: 256, True: 4}  # batch that is tried; True: of the toy
LEAST_TO_COMPILE = 60.0  # seconds
GAIN = 1.03  # a larger batch is taken on with where it is so much faster
# Dense bf16, TFLOP/s: NVIDIA's data sheets of these cards.
DATA_SHEET = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0}
TOY = (
    "data.sequence_length=64",
    "tokenizer.vocabulary=512",
    "teacher.shape={hidden_size: 64, layers: 2, heads: 4, key_value_heads: 2, feed_forward: 128}",
    "stages.300m.student.shape={hidden_size: 48, layers: 2, heads: 4, key_value_heads: 2, feed_forward: 96}",
    "stages.100m.student.shape={hidden_size: 32, layers: 1, heads: 4, key_value_heads: 2, feed_forward: 64}",
    "stages.30m.student.shape={hidden_size: 16, layers: 1, heads: 2, key_value_heads: 1, feed_forward: 32}",
)


class Speed(NamedTuple):
    """One way to train, at its best batch."""

    batch: int
    tokens_per_second: float
    peak_mib: float
    loss: float


def cached(vocabulary: int, device: str) -> SignalSource:
    """Answers as a cache gives them: `LISTED` ids and the mass of the rest, the same for every row."""
    ids = torch.arange(LISTED, device=device)
    inside = torch.full((LISTED,), math.log(0.9 / LISTED), device=device)

    def source(batch: Batch) -> SparseSignal:
        rows = batch.targets.numel()
        return SparseSignal(ids.expand(rows, -1), inside.expand(rows, -1), torch.full((rows,), math.log(0.1), device=device))

    assert vocabulary > LISTED
    return source


def timed(kind: str, way: Way, batch: int, shapes: tuple[Shape, Shape], corpus: Corpus, interface: Interface) -> Speed | None:
    """Train a few steps; None: the GPU has not enough memory."""
    device, precision, moments, losses = resolve_device("auto"), automatic_precision(), list[float](), list[float]()
    assert interface.vocabulary is not None
    settings = Training(steps=WARM + STEPS, batch_size=batch, learning_rate=1e-4, recompute=way.recompute, compile=way.compiled)
    plan = Plan(settings, Objective.model_validate({"alpha": 0.9}), 0, interface.vocabulary, device, precision)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        signals = None
        if kind == "live":
            teacher = prepared(shapes[0], interface, way).to(device).to(frozen_dtype(device, precision))
            signals = live(teacher, interface.vocabulary, precision)
            if way.compiled:
                compile_layers(teacher)
        elif kind == "cached":
            signals = cached(interface.vocabulary, device)

        def on_step(step: Any) -> None:
            moments.append(seen(step, device))
            losses.append(step.loss)

        train(prepared(shapes[1], interface, way).to(device), TrainingBatches(corpus, batch, 0), plan, signals=signals, on_step=on_step)
    except torch.OutOfMemoryError:
        return None
    if not all(map(math.isfinite, losses)):
        sys.exit(f"{kind}, batch {batch}: a loss is not finite in {precision}: {losses}")
    most = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mib()
    return Speed(batch, STEPS * batch * interface.sequence_length / (moments[-1] - moments[WARM - 1]), most, losses[-1])


def best(kind: str, way: Way, until: float, largest: int, *how: Any) -> Speed | None:
    """The fastest batch: doubled while it fits, gains and there is time."""
    found, batch = None, 2
    while batch <= largest:
        now = timed(kind, way, batch, *how)
        if now is None or (found and now.tokens_per_second < GAIN * found.tokens_per_second):
            return found or now
        found, batch = now, 2 * batch
        if time.monotonic() > until:
            return found
    return found


def flops_a_token(kind: str, sizes: tuple[Size, Size]) -> float:
    """Operations that a token costs: forward and backward of the student, forward of a live teacher."""
    teacher, student = (size.forward_flops / size.tokens for size in sizes)
    return 3 * student + (teacher if kind == "live" else 0.0)


def data_sheet(device: str) -> float | None:
    """The data sheet's peak of this GPU in FLOP/s; None: not known here."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((value * 1e12 for card, value in DATA_SHEET.items() if card in name), None)


def described(ladder: Ladder, index: int, interface: Interface) -> tuple[str, tuple[Shape, Shape], tuple[Size, Size]]:
    """A stage's name in the table, the shapes of its teacher and student, and their sizes."""
    shapes = pair(ladder, index)
    sizes = (size_of(shapes[0], interface), size_of(shapes[1], interface))
    return f"{sizes[0].parameters / 1e6:,.3g}M -> {ladder.stages[index].name}", shapes, sizes


def row(name: str, kind: str, speed: Speed | str, sizes: tuple[Size, Size], top: float, sheet: float | None) -> str:
    """A line of the table; of a speed that could not be measured the reason."""
    if isinstance(speed, str):
        return f"| {name} | {kind} | {speed} | | | | | |"
    rate = speed.tokens_per_second * flops_a_token(kind, sizes)
    mfu = f"{rate / sheet:.1%}" if sheet else "-"
    used = f"{speed.peak_mib:,.0f} | {speed.loss:.3f}"
    return f"| {name} | {kind} | {speed.batch} | {speed.tokens_per_second:,.0f} | {rate / top:.1%} | {mfu} | {used} |"


def compiled(index: int, batch: int, toy: bool, seconds: float) -> Speed | str:
    """The speed of a stage's live pair with compiled bodies, measured by a child process; or the reason why there is none."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--compiled", str(index), str(batch), *(["--toy"] if toy else [])]
    more = {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if toy else {}
    with (
        tempfile.TemporaryDirectory(prefix="ladder-gpu-", ignore_cleanup_errors=True) as folder,  # of a child that may be killed
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **more, "TMPDIR": folder}
        ) as child,
    ):
        try:
            printed = child.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # the compilers that it started, too
            return f"ended after {seconds:g} s, its share of the time"
    if child.returncode:
        return f"failed, exit code {child.returncode}"
    found = json.loads(printed.splitlines()[-1])
    return Speed(*found) if found else "not even one batch fits"


def pairs(corpus: Corpus, interface: Interface, until: float, toy: bool, bound: float | None) -> Iterator[str]:
    """The table of speeds, line by line."""
    ladder, largest = load("llama-1b", TOY if toy else ()).ladder, LARGEST[toy]
    device = resolve_device("auto")
    top, sheet, plain = peak(automatic_precision(), device), data_sheet(device), Way("sdpa", recompute=False, compiled=False)
    peak_text = f"{top / 1e12:.2f} TFLOP/s" + (f", data sheet {sheet / 1e12:.0f}" if sheet else "")
    yield f"{machine(device)}, {automatic_precision()}, length {interface.sequence_length}; fastest square product {peak_text}.\n"
    columns = ("pair", "signals", "batch", "tokens/s", "of the fastest product", "MFU", "peak memory, MiB", "loss")
    yield f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    share = (until - time.monotonic()) / (len(KINDS) * len(ladder.stages) + 1)
    chosen, batch = len(ladder.stages) - 1 if toy else 0, 1
    for index in range(len(ladder.stages)):
        name, shapes, sizes = described(ladder, index, interface)
        for kind in KINDS:
            found = best(kind, plain, time.monotonic() + share, largest, shapes, corpus, interface)
            batch = found.batch if found and (index, kind) == (chosen, "live") else batch
            yield row(name, kind, found or "not even one batch fits", sizes, top, sheet)
    name, _, sizes = described(ladder, chosen, interface)
    gc.collect()
    if device == "cuda":  # for the child
        torch.cuda.empty_cache()
    quick = compiled(chosen, batch, toy, bound or max(LEAST_TO_COMPILE, until - time.monotonic()))
    yield row(f"{name}, compiled", "live", quick, sizes, top, sheet)


def made_text(path: Path, megabytes: float) -> None:
    """JSON lines of sentences by a seeded grammar, so that there is something to learn."""
    generator, written = np.random.default_rng(0), 0
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te", "so", "na", "vi") for b in ("dan", "rel", "tos", "min", "gar", "pel")]
    with path.open("w", encoding="utf-8") as file:
        while written < megabytes * 1e6:
            subject, verb, thing = (words[i] for i in generator.zipf(1.4, 3) % len(words))
            count = int(generator.integers(2, 99))
            text = (
                f"The {subject} {verb}s {count} {thing}s. Then {count} {thing}s are {verb}ed by the {subject}, and {count + 1} are left.\n"
            )
            text = json.dumps({"text": text * 12}) + "\n"
            written += file.write(text)


def whole_ladder(overrides: Sequence[str], folder: Path, toy: bool, speed: float, length: int) -> Iterator[str]:
    """Run the ladder with a teacher trained here; its record in a table."""
    made_text(folder / "text.jsonl", 0.3 if toy else 40)
    batch = 4 if toy else 16
    steps = 20 if toy else max(int(60 * speed / (batch * length)), 10)
    shape = json.dumps(pair(load("llama-1b", overrides).ladder, 0)[0].model_dump(exclude_unset=True))
    training = f"steps: {steps}, batch_size: {batch}, learning_rate: 3e-4"
    student = "stages.%s.training={steps: %d, batch_size: %d, accumulation: 1, learning_rate: 1e-3}"
    few = 10 if toy else 30
    settings = [
        f"data.paths=[{folder / 'text.jsonl'}]",
        "tokenizer.kind=bpe",
        f"teacher={{source: train, shape: {shape}, training: {{{training}}}, allow_poor: true}}",
        "defaults.signals={source: cached, kind: top-k, k: 50}",
        "defaults.gate.policy=warn",
        "evaluation.examples=32",
        *(student % (stage, few, batch) for stage in ("300m", "100m", "30m")),
    ]
    began = time.monotonic()
    command = [sys.executable, "-c", "from flows.cli.app import main; main()", "run", "llama-1b", *overrides, *settings]
    done = subprocess.run(command, env=os.environ | {"LADDER_HOME": str(folder / "home")}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the ladder failed:\n{done.stderr[-3000:]}")
    path = next((folder / "home" / "runs").glob("*/record.json"))
    record = RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    yield f"\nA whole ladder, {time.monotonic() - began:.0f} s, teacher trained for {steps} steps of {batch} x {length}:\n"
    yield "| model | parameters | steps | seconds | bits per byte | signals | fingerprint |\n|---|---|---|---|---|---|---|"
    for each in record.models:
        figures = f"{each.parameters:,} | {each.steps} | {each.seconds:.1f} | {each.metrics['bits_per_byte']:.3f}"
        yield f"| {each.name} | {figures} | {each.signals or ''} | {each.fingerprint[:12]} |"


def main() -> None:
    """Measure, print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="in which all of it ends, about: 8, of the toy 2")
    parser.add_argument("--toy", action="store_true", help="small shapes, on a processor too")
    parser.add_argument("--compile-seconds", type=float, help="bound of the compiled pair; else what the others leave, at least 60")
    parser.add_argument("--compiled", type=int, nargs=2, metavar=("STAGE", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    began, device, toy = time.monotonic(), resolve_device("auto"), options.toy
    if device == "cpu" and not toy:
        parser.error("no GPU here: --toy runs the same with small shapes")
    overrides = TOY if toy else ()
    ladder = load("llama-1b", overrides).ladder
    interface = replace(expected_interface(ladder, None), end_id=0, pad_id=0)
    until = began + 60 * (options.minutes or (2 if toy else 8)) / 2
    plain = Way("sdpa", recompute=False, compiled=False)
    with tempfile.TemporaryDirectory(prefix="ladder-gpu-") as name:
        corpus = random_corpus(Path(name), interface, max(200_000, 2 * LARGEST[toy] * interface.sequence_length))
        if options.compiled:
            index, batch = options.compiled
            print(json.dumps(timed("live", plain._replace(compiled=True), batch, pair(ladder, index), corpus, interface)))
            return
        for line in pairs(corpus, interface, until, toy, options.compile_seconds):
            print(line, flush=True)
        shapes = pair(ladder, 0)
        alone = timed("labels", plain, 4, (shapes[0], shapes[0]), corpus, interface)
        speed = alone.tokens_per_second if alone else 1000.0
        for line in whole_ladder(overrides, Path(name), toy, speed, interface.sequence_length):
            print(line, flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all (`python -m benchmarks.gpu{' --toy' if toy else ''}`).")


if __name__ == "__main__":
    main()
