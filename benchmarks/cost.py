"""Cost of a run by numbers of tokens and students: `python -m benchmarks.cost [--pair bytes|smollm2] [--repeats 3]`.

Times the three things a run does (storing the teacher's signals, cached training, evaluation beside the teacher) at several numbers
of tokens, and a dump with the trainings of one to three students that share it. The counts take turns, forwards and backwards, so
that a machine that slows down slows all alike. Prints the least-squares line `seconds = a + b x` of each, its R^2, and the largest
residual as a share of what the line says there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import linregress

from benchmarks.common import automatic_precision, machine
from benchmarks.peers import PAIRS, WARM, prepare
from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model
from models.base.device import resolve_device
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.evaluation.evaluation import collect
from models.signals.cache import SignalCache
from models.signals.codec import Coding
from models.signals.fill import fill_cache, id_order
from models.signals.sources import rows
from models.training.loop import Plan, train

STEPS = {"bytes": (1, 2, 4, 8), "smollm2": (1, 2, 4)}
STUDENTS = (1, 2, 3)


@dataclass(frozen=True)
class LinearFit:
    """`seconds = a + b x`, and how well it fits."""

    a: float
    b: float
    r2: float
    residual: float  # the largest, as a share of the line's value

    @classmethod
    def through(cls, x: Sequence[float], seconds: Sequence[float]) -> LinearFit:
        """The least-squares line."""
        found: Any = linregress(x, seconds)
        said = found.intercept + found.slope * np.asarray(x)
        return cls(found.intercept, found.slope, found.rvalue**2, float(np.abs((np.asarray(seconds) - said) / said).max()))


class Run:
    """The work of a run on a prepared pair."""

    def __init__(self, pair: str, folder: Path) -> None:
        self.pair, self.folder, self.device = pair, folder, resolve_device("auto")
        self.batches = TrainingBatches(Corpus(folder / "corpus", pair), PAIRS[pair][0], 0)
        self.vocabulary = self.batches.info.vocabulary or 0
        self.teacher = load_model(folder / "teacher", "causal-lm").to(self.device).eval()
        self.kind = "sampled" if pair == "smollm2" else "full"
        self.order = None if self.kind == "full" else id_order(self.batches.at(0), self.logits, self.vocabulary)
        self.caches = 0

    def logits(self, batch: Batch) -> torch.Tensor:
        """The teacher's, in fp32."""
        with torch.no_grad(), torch.autocast(self.device, dtype=torch.bfloat16, enabled=automatic_precision() == "bf16"):
            return rows(self.teacher, batch.to(torch.device(self.device)), self.vocabulary).float()

    def fill_cache(self, steps: int) -> SignalCache:
        """A new cache with the signals of so many steps."""
        self.caches += 1
        place = self.folder / f"cache-{self.caches}"
        place.mkdir()
        cache = SignalCache(place, Coding(self.kind, self.vocabulary, 50, 0, self.order), [])
        fill_cache(cache, self.batches, steps, self.logits, "cost")
        return cache

    def train(self, steps: int, cache: SignalCache) -> None:
        """Teach a student for so many steps, from the cache."""
        training = Training(steps=steps, batch_size=PAIRS[self.pair][0], learning_rate=1e-4)
        plan = Plan(training, Objective.model_validate({"alpha": 1.0}), 0, self.vocabulary, self.device, automatic_precision())
        train(load_model(self.folder / "student", "causal-lm"), self.batches, plan, signals=cache.source)

    def evaluate(self, steps: int) -> None:
        """Run a student and its teacher over so many batches."""
        student = load_model(self.folder / "student", "causal-lm").to(self.device)
        held_out = (self.batches.at(step) for step in range(steps))
        collect(student, {"parent": self.teacher}, held_out, self.vocabulary, torch.device(self.device), automatic_precision())

    def teach(self, students: int, steps: int) -> None:
        """One dump, and so many students taught from it."""
        cache = self.fill_cache(steps)
        for _ in range(students):
            self.train(steps, cache)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(run: Run, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(tokens or students, seconds) of each kind of work."""
    counts, cache = STEPS[run.pair], run.fill_cache(max(STEPS[run.pair]))
    batch, length = PAIRS[run.pair]
    kinds: dict[str, Callable[[int], object]] = {
        "dump": run.fill_cache,
        "train": lambda steps: run.train(steps, cache),
        "evaluate": run.evaluate,
    }
    for work in kinds.values():
        work(WARM)
    found: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(repeats):
        for steps in counts if repeat % 2 == 0 else counts[::-1]:
            for kind, work in kinds.items():
                found.setdefault(kind, []).append((steps * batch * length, seconds(lambda: work(steps))))  # noqa: B023
        for students in STUDENTS if repeat % 2 == 0 else STUDENTS[::-1]:
            found.setdefault("students", []).append((students, seconds(lambda: run.teach(students, counts[1]))))  # noqa: B023
    return found


def main() -> None:
    """Prepare, measure, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", choices=[*STEPS], default="bytes")
    parser.add_argument("--repeats", type=int, default=3, help="measurements at each count")
    options = parser.parse_args()
    began, (batch, length) = time.monotonic(), PAIRS[options.pair]
    print(f"{options.pair}, batch {batch} x {length}, {automatic_precision()}, {machine(resolve_device('auto'))}")
    with tempfile.TemporaryDirectory(prefix="ladder-cost-") as name:
        with redirect_stdout(StringIO()):  # how fast the dump was
            prepare(options.pair, Path(name), max(STEPS[options.pair]), automatic_precision())
        found = measure(Run(options.pair, Path(name)), options.repeats)
    print(f"{options.repeats} repeats; tokens {', '.join(f'{s * batch * length:,}' for s in STEPS[options.pair])};", end=" ")
    print(f"students {', '.join(map(str, STUDENTS))}, {STEPS[options.pair][1] * batch * length:,} tokens each\n")
    print(f"{'work':<10}{'a, s':>8}{'b':>26}{'R^2':>9}{'largest residual':>18}  median seconds at each count")
    for kind, pairs in found.items():
        line = LinearFit.through(*zip(*pairs, strict=True))
        unit = f"{line.b:.2f} s a student" if kind == "students" else f"{1e6 * line.b:.1f} s a million tokens"
        medians = [float(np.median([s for x, s in pairs if x == at])) for at in sorted({x for x, _ in pairs})]
        print(f"{kind:<10}{line.a:>8.2f}{unit:>26}{line.r2:>9.4f}{line.residual:>18.1%}  {', '.join(f'{s:.2f}' for s in medians)}")
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
