"""Time of each part of a training step: `python -m benchmarks.breakdown [--pair bytes|smollm2] [--mode live|cached] [--compile]`.

The pairs of `benchmarks.peers`, trained by `models.training.loop.train` itself, whose parts are timed where they are called. Forward KL
does the head's product, the loss and both their gradients in one go, so they are one part; a live teacher's head belongs to it too.
Shares of the peak are operations of matrix products, as `models.architectures.shapes.count` counts them, over time, over the
fastest square product (`benchmarks.step`). With `--compile` the student's body goes through `torch.compile`
instead, in alternation with the plain one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from benchmarks.common import automatic_precision, machine, spread
from benchmarks.peers import PAIRS, WARM, prepare
from benchmarks.step import peak
from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model
from models.architectures.shapes import count
from models.base.device import resolve_device
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.cache import SignalCache
from models.signals.sources import SignalSource, live
from models.training import step as training_step
from models.training.loop import Plan, train

PARTS = ("batch", "body forward", "teacher", "head and loss", "body backward", "clipping", "optimiser")


class Clock:
    """Seconds of each part, step by step; every part waits for the device."""

    def __init__(self, device: str) -> None:
        self.wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.now: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []
        self.last = time.perf_counter()

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time is added to a part."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.wait()
            began = time.perf_counter()
            found = work(*args, **kwargs)
            self.wait()
            self.now[part] += time.perf_counter() - began
            return found

        return run

    def end_step(self, step: object) -> None:
        """Close a step; called once for each."""
        now = time.perf_counter()
        self.steps.append({**self.now, "step": now - self.last})
        self.now.clear()
        self.last = now


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Time the parts of every training within."""
    owners = [
        (TrainingBatches, "at", "batch"),
        (training_step, "hidden_rows", "body forward"),
        (training_step, "chunked_loss", "head and loss"),
        (Accelerator, "backward", "body backward"),
        (Accelerator, "clip_grad_norm_", "clipping"),
        (torch.optim.AdamW, "step", "optimiser"),
    ]
    patches = [patch.object(owner, name, clock.timed(part, getattr(owner, name))) for owner, name, part in owners]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def loaded(folder: Path, name: str, attention: str) -> nn.Module:
    """A model of a prepared pair, which computes attention in this way."""
    model = cast(Any, load_model(folder / name, "causal-lm"))
    model.set_attn_implementation(attention)
    return model


def source_of(mode: str, folder: Path, vocabulary: int, device: str, attention: str) -> SignalSource:
    """The live teacher of a prepared pair, or its signals on disk."""
    if mode == "live":
        return live(loaded(folder, "teacher", attention).to(device), vocabulary, automatic_precision())
    manifest = json.loads((folder / "signals" / "manifest.json").read_text(encoding="utf-8"))
    return SignalCache.open(folder / "signals", manifest["fingerprint"], manifest["identity"], print).source


def run(pair: str, folder: Path, student: nn.Module, source: SignalSource, steps: int, compiles: bool = False) -> list[dict[str, float]]:
    """Train `WARM + steps` steps; seconds of the parts of each."""
    device, batch = resolve_device("auto"), PAIRS[pair][0]
    batches = TrainingBatches(Corpus(folder / "corpus", pair), batch, 0)
    settings = Training(steps=WARM + steps, batch_size=batch, learning_rate=1e-4, compile=compiles)
    plan = Plan(settings, Objective.model_validate({"alpha": 1.0}), 0, batches.info.vocabulary, device, automatic_precision())
    clock = Clock(device)
    with watched(clock):
        train(student, batches, plan, signals=clock.timed("teacher", source), on_step=clock.end_step)
    return clock.steps


def operations(student: nn.Module, teacher: nn.Module | None, pair: str) -> dict[str, float]:
    """Operations of matrix products of each part of a step; `teacher` None: its signals are read."""
    batch, length = PAIRS[pair]

    def apart(model: nn.Module) -> tuple[float, float]:
        head = 2.0 * batch * length * cast(Any, model).get_output_embeddings().weight.numel()
        return batch * count(model, length).forward_flops - head, head

    body, head = apart(student)
    their_body, their_head = apart(teacher) if teacher else (0.0, 0.0)
    return {"body forward": body, "body backward": 2 * body, "head and loss": 3 * head + their_head, "teacher": their_body}


def shapes(student: nn.Module, rows: int, device: str) -> dict[tuple[int, int], float]:
    """FLOP/s of the forward product of each shape (out, in) of a linear layer, in the step's precision: best of ten, all in the cache."""
    found = {}
    dtype = torch.bfloat16 if automatic_precision() == "bf16" else torch.float32
    for out, wide in sorted({tuple(layer.weight.shape) for layer in student.modules() if type(layer) is nn.Linear}):
        x, w = (torch.randn(*size, device=device, dtype=dtype) for size in ((rows, wide), (out, wide)))
        times = []
        for _ in range(10):
            began = time.perf_counter()
            (x @ w.T)[0, 0].item()  # waits for a GPU
            times.append(time.perf_counter() - began)
        found[out, wide] = 2.0 * rows * out * wide / min(times)
    return found


def profile(pair: str, mode: str, folder: Path, steps: int, attention: str) -> None:
    """Print the table of parts, and that of shapes."""
    device = resolve_device("auto")
    student, teacher = (loaded(folder, name, attention).to(device) for name in ("student", "teacher"))
    peaks = [peak(automatic_precision(), device)]
    work = operations(student, teacher if mode == "live" else None, pair)
    vocabulary = Corpus(folder / "corpus", pair).info.vocabulary or 0
    seen = run(pair, folder, student, source_of(mode, folder, vocabulary, device, attention), steps)[WARM:]
    peaks.append(peak(automatic_precision(), device))
    top = max(peaks)
    step = float(np.median([each["step"] for each in seen]))
    medians = {part: float(np.median([each.get(part, 0.0) for each in seen])) for part in PARTS}
    medians["rest"] = float(np.median([each["step"] - sum(each.get(part, 0.0) for part in PARTS) for each in seen]))
    tokens = PAIRS[pair][0] * PAIRS[pair][1]
    print(f"{mode}: step {1e3 * step:,.0f} ms, {tokens / step:,.0f} tokens/s, {sum(work.values()) / step / top:.1%} of the peak")
    print(f"peak of {automatic_precision()} before and after: {' and '.join(f'{value / 1e9:,.0f}' for value in peaks)} GFLOP/s\n")
    print(f"{'part':<16}{'ms':>9}{'share':>8}{'GFLOP/s':>10}{'of peak':>9}")
    for part, seconds in medians.items():
        rate = work.get(part, 0.0) / seconds if seconds else 0.0
        print(f"{part:<16}{1e3 * seconds:>9.1f}{seconds / step:>8.1%}" + (f"{rate / 1e9:>10,.0f}{rate / top:>9.1%}" if rate else ""))
    print(f"\nforward product alone, {tokens} rows")
    for (out, wide), rate in shapes(student, tokens, device).items():
        print(f"{f'{wide} -> {out}':<16}{rate / 1e9:>27,.0f} GFLOP/s{rate / top:>9.1%}")


def compiled(pair: str, mode: str, folder: Path, steps: int, repeats: int, attention: str) -> None:
    """Print steps of a compiled student body beside the plain one's, in alternation."""
    device = resolve_device("auto")
    source = source_of(mode, folder, Corpus(folder / "corpus", pair).info.vocabulary or 0, device, attention)
    students = {name: loaded(folder, "student", attention) for name in ("plain", "compiled")}
    seconds: dict[str, list[float]] = {name: [] for name in students}
    first: dict[str, float] = {}
    for _ in range(repeats):
        for name, student in students.items():
            seen = [each["step"] for each in run(pair, folder, student, source, steps, name == "compiled")]
            first.setdefault(name, sum(seen[:WARM]))
            seconds[name].append(float(np.median(seen[WARM:])))
    saved = float(np.median(np.subtract(seconds["plain"], seconds["compiled"])))
    cost = first["compiled"] - first["plain"]
    print(f"{mode}: plain {spread([1e3 * value for value in seconds['plain']])} ms a step", end=", ")
    print(f"compiled {spread([1e3 * value for value in seconds['compiled']])} ms", end=", ")
    print(f"speed {spread([a / b for a, b in zip(seconds['plain'], seconds['compiled'], strict=True)], '{:.2f}')}")
    print(f"compiling took {cost:.1f} s" + (f", won back after {cost / saved:,.0f} steps" if saved > 0 else ", never won back"))


def main() -> None:
    """Prepare the pair, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", choices=[*PAIRS], default="bytes")
    parser.add_argument("--mode", choices=["live", "cached"], action="append", help="one of them only")
    parser.add_argument("--steps", type=int, default=6, help="timed steps")
    parser.add_argument("--repeats", type=int, default=3, help="with --compile: alternations")
    parser.add_argument("--attention", default="sdpa", help="transformers' name of an attention: sdpa, eager, flash_attention_2 ...")
    parser.add_argument("--compile", action="store_true", help="compare a compiled student body with the plain one")
    options = parser.parse_args()
    began = time.monotonic()
    print(f"{options.pair}, batch {' x '.join(map(str, PAIRS[options.pair]))}, {automatic_precision()}, {machine(resolve_device('auto'))}")
    with tempfile.TemporaryDirectory(prefix="ladder-profile-") as name:
        with redirect_stdout(StringIO()):  # how fast the dump was
            prepare(options.pair, Path(name), options.steps, automatic_precision())
        for mode in options.mode or ("live", "cached"):
            print()
            if options.compile:
                compiled(options.pair, mode, Path(name), options.steps, options.repeats, options.attention)
            else:
                profile(options.pair, mode, Path(name), options.steps, options.attention)
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
