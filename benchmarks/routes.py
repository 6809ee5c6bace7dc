"""Comparison of a ladder's routes at equal FLOPs, over seeds, with their seconds.

    python -m benchmarks.routes [--ladder NAME] [--arms NAMES] [--seeds 5] [--pilot] [KEY=VALUE ...]

Runs `ladder prove` with the routes as arms, each with the FLOPs of the ladder as written, and prints its proof as a table: score on the
test split with its interval, FLOPs and seconds of a seed as shares of the ladder's, and the gain of the ladder as written over each; then
the scores by seed, and the gain of `route: auto` over each arm, where it is one, by Student's t over the paired seeds, on both splits. With
`--pilot` students have a tenth of their steps. A second call, or one that was interrupted, computes only what is missing in LADDER_HOME.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.common import machine
from conf.errors import UserError
from conf.home import home
from conf.loading.load import load
from conf.schema.measures.proof import ROUTE_ARMS, Arm
from models.base.quality import direction
from models.base.statistics import Interval, interval
from tasks.planning.routes import refusal
from tasks.records.format import percent
from tasks.records.proof import ArmResult, Estimate, Proof, Replicate, read_proof
from tasks.runtime.runs.run_registry import list_runs

CONTROLS: tuple[Arm, ...] = ("staged", "direct-matched", "scratch")


def arms_for(source: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """The ladder as written, its controls, and the routes that it can have."""
    ladder, arms = load(source, overrides).ladder, list[str](CONTROLS)
    for route in ROUTE_ARMS:
        if why := refusal(route, ladder):
            print(f"left out: {why}")
        else:
            arms.append(route)
    return tuple(arms)


def proven(source: str, arms: Sequence[str], seeds: int, pilot: bool, overrides: Sequence[str]) -> Proof:
    """Run the proof and read it.

    Raises:
        UserError: It did not finish.
    """
    command = [sys.executable, "-c", "from flows.cli.app import main; main()", "prove", source, "--arms", ",".join(arms)]
    done = subprocess.run([*command, "--seeds", str(seeds), *(["--pilot"] if pilot else []), *overrides], stdout=subprocess.DEVNULL)
    record = max((run for run in list_runs(home()) if run.proof), key=lambda run: run.finished or run.started, default=None)
    proof = read_proof(record) if record else None
    if done.returncode or proof is None:
        raise UserError("The proof did not finish; see its lines above.")
    return proof


def row(arm: ArmResult, staged: ArmResult, proof: Proof) -> str:
    """One line of the table."""
    share = {name: _mean(arm, name) / _mean(staged, name) for name in ("flops", "seconds")}
    steps = " + ".join(f"{count:,}" for count in arm.replicates[0].steps)
    gain = next((each for each in proof.contrasts if each.second == arm.arm), None)
    gains = _words(gain.gain, proof.metric, sign=True) if gain else ""
    outcome = f": {gain.outcome}" if gain else ""
    score = _words(arm.score, proof.metric) if arm.score else ""
    seconds = f"{_mean(arm, 'seconds'):.0f} ({share['seconds']:.2f})"
    return f"| {arm.arm} | {steps} | {score} | {share['flops']:.3f} | {seconds} | {gains}{outcome} |"


def gains_of_auto(proof: Proof) -> list[str]:
    """Auto's gain over each other arm, paired by seed, on both held-out splits; none where auto is no arm, or there is one seed."""
    arms = {arm.arm: arm.replicates for arm in proof.arms}
    own = arms.pop("auto", ())
    if len(own) < 2:
        return []

    def gain(others: Sequence[Replicate], split: str) -> str:
        gains = [direction(proof.metric) * (getattr(a, split) - getattr(b, split)) for a, b in zip(own, others, strict=True)]
        return _words(interval(gains), proof.metric, sign=True)

    return [f"auto over {arm}: {gain(others, 'score')}, on the validation split {gain(others, 'valid')}" for arm, others in arms.items()]


def _mean(arm: ArmResult, name: str) -> float:
    return statistics.fmean(getattr(each, name) for each in arm.replicates)


def _words(estimate: Estimate | Interval, metric: str, sign: bool = False) -> str:
    low, mean, high = (_figure(value, metric, sign) for value in (estimate.low, estimate.mean, estimate.high))
    return f"{mean} ({low} to {high})"


def _figure(value: float | None, metric: str, sign: bool = False) -> str:
    if value is None:
        return "?"
    text = f"{value:.3f}" if metric == "bits_per_byte" else percent(value, 2).removesuffix(" %")
    return f"+{text}" if sign and value > 0 else text


def main() -> None:
    """Run the proof and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ladder", default="digits")
    parser.add_argument("--arms", default="", help="Names, separated by commas; none: controls and all routes that the ladder can have.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pilot", action="store_true", help="A tenth of every student's steps.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args()
    arms = tuple(given.arms.split(",")) if given.arms else arms_for(given.ladder, given.overrides)
    proof = proven(given.ladder, arms, given.seeds, given.pilot, given.overrides)
    unit = "bits per byte" if proof.metric == "bits_per_byte" else "accuracy, %"
    print(f"{proof.ladder}, {proof.seeds} seeds{', a tenth of the steps' if proof.pilot else ''}; {machine('cpu')}\n")
    print(f"| arm | steps | {unit} | FLOPs | seconds a seed | staged gains (95 % interval) |\n|---|---|---|---|---|---|")
    for arm in proof.arms:
        print(row(arm, proof.arms[0], proof))
    print()
    for arm in proof.arms:
        print(f"{arm.arm} by seed: {', '.join(_figure(each.score, proof.metric) for each in arm.replicates)}")
    for line in gains_of_auto(proof):
        print(line)


if __name__ == "__main__":
    main()
