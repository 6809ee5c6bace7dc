"""Cost of operating Ladder: `python -m benchmarks.operations [--runs 50]`.

Seconds from a command to its first training step, with an embedded server and with `ladder serve`; seconds that orchestration adds to a
stage; the seconds of runs that reuse everything, and what the servers' memory is after them. Everything in real processes, in a home of
its own that is deleted afterwards; the machine's other work is in the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.common import spread
from conf.loading.load import load
from conf.loading.yaml_output import to_yaml

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0


class Command:
    """The command `ladder` in a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        # No telemetry, and no server but those of this benchmark.
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "LADDER_"))}
        self.env = {**own, "LADDER_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a command; its output is thrown away."""
        command = [sys.executable, "-m", "flows.cli.app", *args]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def seconds(self, *args: str) -> float:
        """Run a command to its end."""
        began = time.monotonic()
        process = self.start(*args)
        if process.wait(PATIENCE) != 0:
            raise SystemExit(f"ladder {' '.join(args)} ended with code {process.returncode}; see {self.home}")
        return time.monotonic() - began

    def first_step(self, *args: str) -> float:
        """Seconds from the command to the checkpoint of its first training step; the run is then ended."""
        began, before = time.monotonic(), self._checkpoints()
        process = self.start(*args)
        while not self._checkpoints() - before:
            if process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise SystemExit(f"ladder {' '.join(args)} did not train; see {self.home}")
            time.sleep(0.01)
        taken = time.monotonic() - began
        process.terminate()
        process.wait(PATIENCE)
        return taken

    def _checkpoints(self) -> set[Path]:
        return set(self.home.glob("store/checkpoints/*/step-*"))


def wait_served(ladder: Command) -> tuple[subprocess.Popen[bytes], float, dict[str, Any]]:
    """Start `ladder serve`; returns its process, the seconds until it was up, and its addresses."""
    began, place = time.monotonic(), ladder.home / "serve.json"
    process = ladder.start("serve")
    while not place.is_file():
        if process.poll() is not None or time.monotonic() - began > PATIENCE:
            raise SystemExit("ladder serve did not come up")
        time.sleep(0.05)
    return process, time.monotonic() - began, json.loads(place.read_text(encoding="utf-8"))


def memory(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Resident MiB of each of the processes of `ladder serve`."""
    found = {}
    for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        words = " ".join(child.cmdline())
        kinds = {"flows.serving.flow_runner": "runner", "mlflow": "MLflow", "guard.py": "Prefect", "flows.cli.app": "serve"}
        name = next((kind for mark, kind in kinds.items() if mark in words), "other")
        found[name] = found.get(name, 0.0) + child.memory_info().rss / 2**20
    return found


def short_ladder(folder: Path, stages: int) -> Path:
    """`digits` with so many equal stages of five steps."""
    plain = yaml.safe_load(to_yaml(load("digits").ladder))
    last = plain["stages"][-1]
    student = {**last["student"], "initialisation": "random"}
    training = {**last["training"], "steps": 5}
    plain["stages"] = [{**last, "name": f"s{i}", "student": student, "training": training, "seed": i} for i in range(stages)]
    plain["teacher"]["training"]["steps"] = 5
    for stage in plain["stages"]:
        stage["gate"]["policy"] = "warn"
    path = folder / f"short-{stages}.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


def trained(home: Path) -> float:
    """Seconds of training in the newest run."""
    newest = max(home.glob("runs/*/record.json"), key=lambda path: path.stat().st_mtime)
    return sum(stage["seconds"] for stage in json.loads(newest.read_text(encoding="utf-8"))["stages"])


def stage_overhead(ladder: Command, folder: Path, repeats: int) -> list[float]:
    """Seconds that a stage adds to a run beside its training: a long and a short ladder, the teacher reused in both."""
    short, long = short_ladder(folder, 2), short_ladder(folder, 8)
    ladder.seconds("run", str(short))  # data and teacher
    found = []
    for _ in range(repeats):
        taken = []
        for path in (short, long):
            whole = ladder.seconds("run", str(path), "--start-at", "s0", "--fresh")
            taken.append(whole - trained(ladder.home))
        found.append((taken[1] - taken[0]) / 6)
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="reused runs against the server")
    parser.add_argument("--repeats", type=int, default=3, help="of the other measurements; 0: none of them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ladder-operations-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        eager = ("run", "digits", "teacher.training.checkpoint_every=1")
        if arguments.repeats:
            cold = [Command(folder / f"cold-{i}").first_step(*eager) for i in range(arguments.repeats)]
            print(f"command to first step, empty home, embedded server: {spread(cold, '{:.1f}')} s", flush=True)
        ladder = Command(folder / "home")
        process, up, where = wait_served(ladder)
        try:
            print(f"ladder serve, empty home: up in {up:.1f} s, Prefect at {where['prefect_ui']}", flush=True)
            if arguments.repeats:
                warm = [ladder.first_step(*eager, f"seed={i + 1}") for i in range(arguments.repeats)]
                print(f"command to first step, with ladder serve: {spread(warm, '{:.1f}')} s", flush=True)
                added = stage_overhead(ladder, folder, arguments.repeats)
                print(f"orchestration adds to a stage: {spread(added, '{:.2f}')} s (target: at most 3)", flush=True)
            ladder.seconds("run", "digits")
            before = memory(process)
            reused = [ladder.seconds("run", "digits") for _ in range(arguments.runs)]
            print(f"{arguments.runs} runs of digits, all reused: {spread(reused, '{:.1f}')} s each (target: at most 6)")
            quarter = max(arguments.runs // 4, 1)
            print(
                f"the first and the last quarter: {statistics.median(reused[:quarter]):.1f} s, {statistics.median(reused[-quarter:]):.1f} s"
            )
            after = memory(process)
            print("MiB before and after them: " + ", ".join(f"{name} {before.get(name, 0):.0f} -> {after[name]:.0f}" for name in after))
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
