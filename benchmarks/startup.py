"""Cost of starting Ladder: `python -m benchmarks.startup [reused] [first-step] [first-lines] [runs] [stages] [idle] [object-store]`.

Wall-clock seconds, and seconds of a processor, which other work on the machine changes less: those of the command and of the processes
that it waits for, and apart from them those of the Prefect server that it starts or finds. Everything in real processes, in a home of
its own that is deleted afterwards.

    reused       `digits` again, where everything is stored: with no server up, and with the one that the run before has left
    first-step   from the command to the first training step, in an empty home
    first-lines  to the first line of `doctor`, `plan` and `runs`
    runs         `runs`, `show` and a reused run, where the home holds ten and a thousand runs
    stages       a stage of a ladder with few and with thirty stages, all of five steps
    idle         an idle `ladder serve`: share of a core, and memory
    object-store `digits` reused, with and without an object store (on loopback) that holds all its results
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.common import spread
from benchmarks.object_store import KEYS, loopback
from benchmarks.operations import Command, short_ladder, wait_served
from tasks.store.remote.address import VARIABLE

ALL = ("reused", "first-step", "first-lines", "runs", "stages", "idle", "object-store")
IDLE_SECONDS = 120.0


class Cost(NamedTuple):
    """Seconds of a command by the clock, of a processor, and of a processor in the server."""

    wall: float
    own: float
    server: float


def server_seconds(home: Path) -> float:
    """Seconds of a processor that the embedded servers of a home have taken."""
    seconds = 0.0
    for address in home.glob("prefect/embedded-*.json"):
        try:
            times = psutil.Process(json.loads(address.read_text(encoding="utf-8"))["pid"]).cpu_times()
        except psutil.Error:
            continue
        seconds += times.user + times.system
    return seconds


def cost(ladder: Command, *args: str) -> Cost:
    """Run a command to its end."""
    before, began = server_seconds(ladder.home), time.monotonic()
    process = ladder.start(*args)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"ladder {' '.join(args)} ended with code {process.returncode}; see {ladder.home}")
    server = server_seconds(ladder.home) - before
    return Cost(time.monotonic() - began, used.ru_utime + used.ru_stime, server)


def told(costs: list[Cost]) -> str:
    """Median, least and most of each kind."""
    walls, own, server = zip(*costs, strict=True)
    return f"wall {spread(walls, '{:.1f}')} s, processor {spread(own, '{:.2f}')} s, the server's {spread(server, '{:.2f}')} s"


def end_server(home: Path) -> None:
    """End the embedded servers of a home."""
    for address in home.glob("prefect/embedded-*.json"):
        try:
            process = psutil.Process(json.loads(address.read_text(encoding="utf-8"))["pid"])
            process.terminate()
            process.wait(30)
        except psutil.NoSuchProcess:
            continue


def reused(folder: Path, repeats: int) -> None:
    """A run that finds everything."""
    ladder = Command(folder / "reused")
    cost(ladder, "run", "digits")
    cold = []
    for _ in range(repeats):
        end_server(ladder.home)
        cold.append(cost(ladder, "run", "digits"))
    print(f"digits reused, no server up: {told(cold)}", flush=True)
    print(f"digits reused, the server of the run before: {told([cost(ladder, 'run', 'digits') for _ in range(repeats)])}", flush=True)
    end_server(ladder.home)


def first_step(folder: Path, repeats: int) -> None:
    """The first training step in an empty home."""
    found = []
    for number in range(repeats):
        ladder, before = Command(folder / f"cold-{number}"), resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = ladder.first_step("run", "digits", "teacher.training.checkpoint_every=1")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # its end included
        found.append(Cost(wall, own, server_seconds(ladder.home)))
        end_server(ladder.home)
    print(f"command to first step, empty home: {told(found)}", flush=True)


def first_lines(folder: Path, repeats: int) -> None:
    """The first line of commands that look."""
    ladder = Command(folder / "lines")
    for args in (("doctor",), ("plan", "digits"), ("runs",)):
        waits, used = [], []
        for _ in range(repeats):
            began = time.monotonic()
            command = [sys.executable, "-m", "flows.cli.app", *args]
            with subprocess.Popen(command, env=ladder.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
                assert process.stdout
                process.stdout.readline()
                waits.append(time.monotonic() - began)
                used.append(sum(psutil.Process(process.pid).cpu_times()[:2]))
                process.kill()
        wall, own = spread(waits, "{:.2f}"), spread(used, "{:.2f}")
        print(f"first line of ladder {' '.join(args)}: {wall} s (target: at most 2 on an idle machine), {own} s of a processor", flush=True)


def copies(home: Path, number: int) -> None:
    """Replace the runs of a home by so many copies of one of them, an hour apart."""
    made = next(home.glob("runs/*/record.json")).parent
    record, settings = json.loads((made / "record.json").read_text(encoding="utf-8")), (made / "ladder.yaml").read_bytes()
    shutil.rmtree(home / "runs")
    last = datetime.now(UTC) - timedelta(hours=1)
    for i in range(number):
        folder, started = home / "runs" / f"digits-{i:04}", last - timedelta(hours=number - i)
        folder.mkdir(parents=True)
        begun, ended = (moment.isoformat(timespec="seconds") for moment in (started, started + timedelta(minutes=1)))
        copy = {**record, "run": folder.name, "folder": str(folder), "started": begun, "finished": ended}
        (folder / "record.json").write_text(json.dumps(copy), encoding="utf-8")
        (folder / "ladder.yaml").write_bytes(settings)


def many_runs(folder: Path, repeats: int) -> None:
    """Commands in a home of few and of many runs."""
    ladder = Command(folder / "many")
    cost(ladder, "run", "digits")
    for number in (10, 1000):
        copies(ladder.home, number)
        first = cost(ladder, "runs").own
        for args in (("runs",), ("show",), ("run", "digits")):
            found = [cost(ladder, *args).own for _ in range(repeats)]
            print(f"{number} runs: ladder {' '.join(args)}: {spread(found, '{:.2f}')} s of a processor", flush=True)
        print(f"{number} runs: ladder runs without an index: {first:.2f} s of a processor", flush=True)
    end_server(ladder.home)


def stages(folder: Path, repeats: int) -> None:
    """Seconds of a processor of one more stage, in short and long ladders: a difference, so that the start of a run is in none."""
    ladder, numbers = Command(folder / "stages"), (2, 10, 30)
    paths = {number: short_ladder(folder, number) for number in numbers}
    cost(ladder, "run", str(paths[2]))
    taken = {number: [] for number in numbers}
    for _ in range(repeats):
        for number, path in paths.items():
            found = cost(ladder, "run", str(path), "--start-at", "s0", "--fresh")
            taken[number].append((found.own, found.server))
    for few, many in ((2, 10), (10, 30)):
        of = [[(b[i] - a[i]) / (many - few) for a, b in zip(taken[few], taken[many], strict=True)] for i in (0, 1)]
        own, server = (spread(found, "{:.2f}") for found in of)
        print(f"a stage between {few} and {many}: {own} s of a processor, the server's {server} s", flush=True)
    end_server(ladder.home)


def idle(folder: Path, repeats: int) -> None:
    """An idle `ladder serve`."""
    process, up, _ = wait_served(Command(folder / "idle"))
    try:
        time.sleep(20)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for _ in range(repeats):
            before, began = [sum(each.cpu_times()[:2]) for each in family], time.monotonic()
            time.sleep(IDLE_SECONDS)
            shares = [(sum(each.cpu_times()[:2]) - was) / (time.monotonic() - began) for each, was in zip(family, before, strict=True)]
            size = sum(each.memory_info().rss for each in family) / 2**20
            parts = ", ".join(f"{share:.2%}" for share in shares)
            print(f"idle ladder serve, up in {up:.1f} s: {sum(shares):.2%} of a core ({parts}; target: 3 %), {size:.0f} MiB", flush=True)
    finally:
        process.terminate()
        process.wait(60)


def object_store(folder: Path, repeats: int) -> None:
    """A run that finds everything, in alternation with and without an object store that holds everything, too; and fetched into a home."""
    plain = Command(folder / "plain")
    cost(plain, "run", "digits")
    with loopback() as address:
        away, empty = Command(plain.home), Command(folder / "empty")
        for ladder in (away, empty):
            ladder.env |= {VARIABLE: f"{address}/startup", **{name: os.environ[name] for name in (*KEYS, "AWS_ENDPOINT_URL")}}
        print(f"digits reused, uploaded: {told([cost(away, 'run', 'digits')])}", flush=True)
        pairs = [(cost(plain, "run", "digits"), cost(away, "run", "digits")) for _ in range(repeats)]
        print(f"digits reused, no object store: {told([one for one, _ in pairs])}", flush=True)
        print(f"digits reused, known to be in the object store: {told([other for _, other in pairs])}", flush=True)
        print(f"with it less without: {spread([other.wall - one.wall for one, other in pairs], '{:+.2f}')} s", flush=True)
        end_server(plain.home)
        print(f"digits fetched into an empty home: {told([cost(empty, 'run', 'digits')])}", flush=True)
        end_server(empty.home)


def main() -> None:
    """Print the figures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", default=[], help="none: all of them")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    measures = dict(zip(ALL, (reused, first_step, first_lines, many_runs, stages, idle, object_store), strict=True))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="ladder-startup-", ignore_cleanup_errors=True) as text:
        for name in arguments.what or ALL:
            if name not in measures:
                parser.error(f"{name} is none of {', '.join(ALL)}")
            measures[name](Path(text), arguments.repeats)
    print(f"load {os.getloadavg()[0]:.1f} at the end", flush=True)


if __name__ == "__main__":
    main()
