"""A thousand workers on simulated clocks: stragglers, failures, checkpoints, restarts, and waiting for a lock.

Nothing here runs a model: times are laws, whose constants are in `Law` and printed. Steps are synchronous, as with torchrun: each lasts as
long as its slowest worker, plus the all-reduce. A failure throws all workers back to the last checkpoint, as `compute.max_failures` does.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

HOUR = 3600.0
HOPELESS = 20_000  # failures after which a training is given up


@dataclass(frozen=True)
class Law:
    """Constants of a simulated training: the first stage of `llama-1b`, its student of 300M parameters.

    Attributes:
        parameters: Of the student.
        sequence_seconds: A worker's time for one sequence of a batch, teacher included: 2,048 tokens at 50,000 a second.
        batch: Sequences of a step, whatever the number of workers; 0: `each` for every worker.
        each: Sequences of a worker in a step, where `batch` is 0.
        bandwidth: Bytes a second of a worker's link, each way.
        latency: Seconds of a hop of the ring.
        disk: Bytes a second of the disk that all workers share, for all of them together.
        spread: Standard deviation of the logarithm of a worker's time for a step.
        hiccups: Probability that a worker takes three times as long in a step.
        mtbf: Mean time between failures of one worker, seconds. 50,000 hours is that of 16,384 GPUs with 419 unexpected interruptions in 54
            days (Grattafiori et al. 2024, arXiv:2407.21783).
        start: Seconds from a failure until all processes have started anew.
        every: Steps between checkpoints.
        saved_by: `one`: the first worker writes all; `all`: each writes its part (fsdp). The shared disk bounds both.
        writer: Bytes a second that one worker can write.
    """

    parameters: float = 300e6
    sequence_seconds: float = 2048 / 50e3
    batch: int = 256
    each: int = 8
    bandwidth: float = 25e9
    latency: float = 20e-6
    disk: float = 10e9
    spread: float = 0.05
    hiccups: float = 1e-4
    mtbf: float = 50e3 * HOUR
    start: float = 60.0
    every: int = 250
    saved_by: Literal["one", "all"] = "one"
    writer: float = 2e9

    def sequences(self, n: int) -> int:
        """Sequences of a worker in a step; of a fixed batch the largest share."""
        return math.ceil(self.batch / n) if self.batch else self.each

    def all_reduce(self, n: int) -> float:
        """Seconds of a ring all-reduce of gradients in fp32: 2 (n - 1) / n of their bytes pass each link, in 2 (n - 1) hops."""
        return 2 * (n - 1) / n * 4 * self.parameters / self.bandwidth + 2 * (n - 1) * self.latency

    def save(self, n: int) -> float:
        """Seconds of a checkpoint of 12 bytes a parameter, weights and moments, for which all wait."""
        rate = min(self.disk, self.writer if self.saved_by == "one" else n * self.writer)
        return 12 * self.parameters / rate

    def restart(self, n: int) -> float:
        """Seconds from a failure to the next step: every worker reads the whole checkpoint from the shared disk."""
        return self.start + 12 * self.parameters * max(n / self.disk, 1 / self.bandwidth)


class Outcome(NamedTuple):
    """A simulated training."""

    seconds: float
    failures: int
    lost_steps: int  # trained again
    waiting: float  # mean share of a step in which a worker waits: for the slowest, for gradients, for the checkpoint
    goodput: float  # sequences a second that count, of n times those of one worker that never waits or fails


def simulate(law: Law, n: int, steps: int, seed: int = 0) -> Outcome:
    """Train `steps` steps with n workers; events are the ends of steps and the failures of workers."""
    random = np.random.default_rng([seed, n])
    failing = [(float(at), worker) for worker, at in enumerate(random.exponential(law.mtbf, n))]
    heapq.heapify(failing)
    clock, step, saved, failures, lost, waited = 0.0, 0, 0, 0, 0, 0.0
    work, reduce, save, restart = law.sequences(n) * law.sequence_seconds, law.all_reduce(n), law.save(n), law.restart(n)
    done = 0
    while step < steps:
        times = work * np.exp(law.spread * random.standard_normal(n)) * np.where(random.random(n) < law.hiccups, 3.0, 1.0)
        slowest, checkpoint = float(times.max()), (step + 1) % law.every == 0
        end = clock + slowest + reduce + (save if checkpoint else 0.0)
        if failing[0][0] < end:
            at, worker = heapq.heappop(failing)
            failures, lost = failures + 1, lost + step - saved
            clock, step = at + restart, saved  # one during a restart begins it anew
            heapq.heappush(failing, (clock + float(random.exponential(law.mtbf)), worker))
            if failures > HOPELESS:
                return Outcome(math.inf, failures, lost, 1.0, 0.0)
            continue
        waited += 1 - float(times.mean()) / (end - clock)
        done, clock, step = done + 1, end, step + 1
        saved = step if checkpoint else saved
    sequences = law.batch or law.each * n
    return Outcome(clock, failures, lost, waited / done, steps * sequences * law.sequence_seconds / (clock * n))


def best_interval(law: Law, n: int) -> float:
    """Steps between checkpoints that lose least: the square root of 2 x save x time between failures (Young 1974, CACM 17)."""
    step = law.sequences(n) * law.sequence_seconds + law.all_reduce(n)
    return math.sqrt(2 * law.save(n) * law.mtbf / n) / step


def workers_table(sizes: Sequence[int], steps: int, laws: dict[str, Law]) -> tuple[str, dict[str, list[Outcome]]]:
    """Markdown of goodput against the number of workers, and the outcomes by law."""
    head = (
        "law",
        "workers",
        "step, s",
        "of it all-reduce",
        "restart, s",
        "hours",
        "failures",
        "steps again",
        "idle",
        "goodput",
        "best checkpoint interval",
    )
    lines, outcomes = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"], dict[str, list[Outcome]]()
    for name, law in laws.items():
        for n in sizes:
            if law.batch and n > law.batch:
                lines.append(f"| {name} | {n:,} | a batch of {law.batch} has no share for each |" + " |" * 8)
                continue
            found = simulate(law, n, steps)
            outcomes.setdefault(name, []).append(found)
            step = law.sequences(n) * law.sequence_seconds + law.all_reduce(n)
            cells = (
                f"{step:.3f}",
                f"{law.all_reduce(n) / step:.0%}",
                f"{law.restart(n):,.0f}",
                f"{found.seconds / HOUR:,.2f}" if found.failures <= HOPELESS else "no end",
                f"{found.failures:,}",
                f"{found.lost_steps:,}",
                f"{found.waiting:.0%}",
                f"{found.goodput:.1%}",
                f"{best_interval(law, n):,.0f}",
            )
            lines.append(f"| {name} | {n:,} | {' | '.join(cells)} |")
    return "\n".join(lines), outcomes


LAWS = {
    "batch of 256": Law(),
    "8 sequences a worker": Law(batch=0),
    "8 each, a worker fails once a day": Law(batch=0, mtbf=24 * HOUR),
    "the same, a checkpoint every 25 steps": Law(batch=0, mtbf=24 * HOUR, every=25),
    "the same, in parts by all, disk of 100 GB/s": Law(batch=0, mtbf=24 * HOUR, every=25, saved_by="all", disk=100e9),
}


class Queue(NamedTuple):
    """Processes that wait for one lock."""

    last: float  # seconds until the last has it
    polls: int


def queue(n: int, hold: float, poll: float = 0.05, seed: int = 0) -> Queue:
    """Let n processes want the same result, finished at 0: each takes the lock in turn, verifies for `hold` seconds, goes on.

    A process that finds the lock taken asks again every `poll` seconds, as filelock does; whoever asks first after a release has it.
    """
    phases = np.random.default_rng([seed, n]).uniform(0, poll, n)
    waiting, clock, polls = np.ones(n, dtype=bool), 0.0, 0
    for _ in range(n):
        following = np.where(waiting, phases + np.ceil(np.maximum(clock - phases, 0.0) / poll) * poll, np.inf)
        taker = int(following.argmin())
        released = float(following[taker]) + hold
        waiting[taker] = False
        polls += int(waiting.sum() * (released - clock) / poll)
        clock = released
    return Queue(clock, polls)


def queues(sizes: Sequence[int], holds: dict[str, float]) -> tuple[str, dict[str, list[Queue]]]:
    """Markdown of the wait for one lock, and the figures."""
    head = ("held for", *(f"{n:,} processes: last has it, lock calls a second" for n in sizes))
    lines, found = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"], dict[str, list[Queue]]()
    for name, hold in holds.items():
        found[name] = [queue(n, hold) for n in sizes]
        cells = [f"{each.last:,.1f} s, {each.polls / each.last:,.0f}" for each in found[name]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines), found
