"""Kill runs at random moments, continue them, and compare with an undisturbed run.

    python -m benchmarks.kills 100 [--seed 0] [--keep FOLDER]

Each kill is drawn from a seed: a phase of the run (its start, data, training, a checkpoint, evaluation, ...) out of those that were
drawn least so far, an occurrence of it, a moment within its usual time, and a signal: SIGKILL mostly, SIGTERM and SIGINT sometimes. A
phase that is over sooner than usual is killed at its end. Commands are forked from this process, which has everything imported, in a
process session of their own; those of every fifteenth home are started anew, with Prefect's embedded server.
A home is killed up to three times; then the run is continued to its end, and these must hold:

- weights and all figures of the record that hold no seconds are those of the undisturbed run;
- no process of the run is left, and no half-written file;
- MLflow has one ladder run, FINISHED, and none that is RUNNING; Prefect has no flow run and no task run in an open state;
- after SIGTERM and SIGINT the record says interrupted, MLflow KILLED, Prefect Cancelled with the name Interrupted.
"""

from __future__ import annotations

import argparse
import atexit
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kill_checks import Trackers, check_interrupted, differences, left_processes, results
from benchmarks.kill_probes import PHASES, Kill, install, plan
from flows.serving.environment import HEARTBEAT, for_runs
from tests.flows.driver import half_written
from tests.flows.ladders import TINY
from tests.flows.served import PrefectServer

SIGNALS = (signal.SIGKILL,) * 7 + (signal.SIGTERM,) * 2 + (signal.SIGINT,)
DEATHS = 3  # of a home, at most
SECONDS = 1800.0  # of a command, and then it counts as hanging
# Two stages that take a second, learn from cached answers, and are measured and audited.
LADDER = (
    TINY.partition("  - name: three")[0].replace("steps: 120", "steps: 40")
    + """
audit: {control: true, min_count: 5, min_documents: 5, resamples: 200}
bench: {stage_seconds: 0.2}
"""
)
LADDER = LADDER.replace("\ndefaults:\n", "\ndefaults:\n  signals: {source: cached, kind: full}\n")
COLD, COLD_SECONDS, COLD_EVERY = "whole command, embedded server", 40.0, 15
COMMANDS = {"run": ("run",), "prove": ("prove", "proof.seeds=2", "proof.arms=[staged,scratch]")}


@dataclass
class Tally:
    """Kills by phase, and what did not hold."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    homes: int = 0


class Command:
    """One command in a process session of its own, with its log and the journal of its phases."""

    def __init__(self, home: Path, args: tuple[str, ...], kill: Kill | None, *, cold: bool = False) -> None:
        """Fork it; `cold`: start Python anew, without a Prefect server, and strike from here."""
        self.home, self.log, self.journal = home, home.parent / "log.txt", home.parent / "phases.txt"
        self.journal.unlink(missing_ok=True)
        if cold:
            self.pid = self._start(args)
            if kill is not None:
                threading.Thread(target=self._strike, args=(kill,), daemon=True).start()
            return
        self.pid = os.fork()
        if self.pid == 0:
            self._become(args, kill)

    def _start(self, args: tuple[str, ...]) -> int:
        env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        with self.log.open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "flows.cli.app", *args]
            return subprocess.Popen(command, env={**env, "LADDER_HOME": str(self.home)}, stdout=log, stderr=log, start_new_session=True).pid

    def _strike(self, kill: Kill) -> None:
        time.sleep(kill.seconds)
        self.journal.write_text(f"killed in {COLD} {kill.seconds}\n", encoding="utf-8")
        with suppress(ProcessLookupError):
            os.kill(self.pid, kill.number)

    def _become(self, args: tuple[str, ...], kill: Kill | None) -> None:
        code = 1
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler)
            os.environ["LADDER_HOME"] = str(self.home)
            atexit._clear()
            plan(kill, self.journal)
            sys.argv = ["ladder", *args]
            from flows.cli.app import main

            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        except BaseException:  # noqa: BLE001 - as Python's own end of a process
            traceback.print_exc()
        finally:
            try:
                threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue] - as at the end of a process
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def wait(self) -> int:
        """The exit code, negative for a signal; a command that hangs is killed and gets the code 999."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return 999

    def phases(self) -> list[tuple[str, float]]:
        """Phases in the order of their beginnings, with their seconds; and `killed` with the phase that was under way."""
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []
        return [(name, float(seconds)) for name, seconds in (line.rsplit(" ", 1) for line in lines)]


def draw(generator: random.Random, usual: list[tuple[str, float]], drawn: Counter[str]) -> Kill:
    """A kill in one of the phases that were drawn least so far, whatever time it takes."""
    names = sorted({name for name, _ in usual})
    fewest = min(drawn[name] for name in names)
    phase = generator.choice([name for name in names if drawn[name] == fewest])
    drawn[phase] += 1
    times = [seconds for name, seconds in usual if name == phase]
    occurrence = generator.randrange(len(times))
    return Kill(phase, occurrence, generator.uniform(0, times[occurrence]), generator.choice(SIGNALS))


def kill_and_continue(
    place: Path,
    what: str,
    ladder: Path,
    usual: list[tuple[str, float]],
    wanted: Any,
    rest: int,
    generator: random.Random,
    trackers: Trackers,
    drawn: Counter[str],
) -> Tally:
    """Kill the run of a new home up to three times, continue it to its end, and compare."""
    tally, home, began = Tally(homes=1), place / "home", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    cold, words = what == COLD, COMMANDS.get(what, ("run",))
    command, told = (words[0], str(ladder), *words[1:]), f"{place.name} ({what})"
    for _ in range(min(rest, generator.randint(1, DEATHS))):
        kill = draw(generator, usual, drawn) if not cold else Kill(COLD, 0, generator.uniform(0, COLD_SECONDS), generator.choice(SIGNALS))
        run = Command(home, command, kill, cold=cold)
        code, phases = run.wait(), run.phases()
        hit = [name.removeprefix("killed in ") for name, _ in phases if name.startswith("killed in ")]
        if hit:
            tally.kills[hit[0], kill.number.name] += 1
        where = f"{told}, {kill}: "
        tally.faults += [f"{where}hangs"] if code == 999 else []
        tally.faults += [f"{where}left {each}" for each in left_processes(run.pid, home)]
        if hit and kill.number != signal.SIGKILL and not cold:
            tally.faults += [f"{where}{each}" for each in check_interrupted(home, trackers, code)]
        if "Traceback" in run.log.read_text(encoding="utf-8"):
            tally.faults.append(f"{where}a traceback, see {run.log}")
        if code == 0 and not hit:  # the moment never came
            break
    last = Command(home, command, None, cold=cold)
    code = last.wait()
    where = f"{told}, at its end: "
    tally.faults += [] if code == 0 else [f"{where}exit code {code}, see {last.log}"]
    tally.faults += [f"{where}left {each}" for each in left_processes(last.pid, home)]
    tally.faults += [f"{where}another result: {each}" for each in differences(results(home), wanted)]
    left = [*half_written(home), *map(str, home.rglob(".*.writing")), *map(str, home.glob("store/checkpoints/*"))]
    tally.faults += [f"{where}half-written {each}" for each in left]
    runs = trackers.mlflow(home)
    tally.faults += [] if "RUNNING" not in {status for _, status in runs} else [f"{where}MLflow has {runs}"]
    ladders = [status for is_ladder, status in runs if is_ladder]
    tally.faults += (
        [] if set(ladders) <= {"FINISHED", "KILLED"} and "FINISHED" in ladders else [f"{where}MLflow's ladder runs are {ladders}"]
    )
    tally.faults += [f"{where}Prefect: {each}" for each in trackers.open_states(home, began)]
    return tally


def prepare(place: Path) -> tuple[Path, Path]:
    """The ladder's file, and a home with an empty MLflow database, which takes seconds to make."""
    ladder, home = place / "tiny.yaml", place / "empty"
    ladder.write_text(LADDER, encoding="utf-8")
    code = "from conf.home import home; from tasks.tracking.tracker import connect; connect(home())"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "LADDER_HOME": str(home)}, check=True)
    return ladder, home


def main() -> None:
    """Read the command line, kill, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for homes with a fault")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and folders do not stay
    generator = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        server = PrefectServer(place)
        server.start()
        try:
            os.environ.update({key: value for key, value in for_runs().items() if key not in HEARTBEAT})
            os.environ.update(
                PREFECT_API_URL=server.api,
                OMP_NUM_THREADS="1",
                COLUMNS="200",
                TMPDIR=name,
                LADDER_RECORD_PATIENCE="20",
                LADDER_SERVER_SECONDS="1",
            )
            ladder, empty = prepare(place)
            install()
            report(kills(asked.kills, generator, place, ladder, empty, server, asked.keep), asked.seed)
        finally:
            server.kill()


def kills(count: int, generator: random.Random, place: Path, ladder: Path, empty: Path, server: PrefectServer, keep: Path | None) -> Tally:
    """Home after home, until there were so many kills, or Ctrl-C."""
    total, trackers, drawn = Tally(), Trackers(server), Counter[str]()
    undisturbed: dict[str, tuple[list[tuple[str, float]], Any]] = {}
    while (rest := count - sum(total.kills.values())) > 0:
        total.homes += 1
        own = place / f"home-{total.homes}"
        shutil.copytree(empty, own / "home")
        what = COLD if total.homes % COLD_EVERY == 0 else "prove" if total.homes % 4 == 0 else "run"
        known = what if what in COMMANDS else "run"
        try:
            if known not in undisturbed:
                undisturbed[known] = run_undisturbed(place / f"whole-{known}" / "home", empty, ladder, COMMANDS[known])
            found = kill_and_continue(own, what, ladder, *undisturbed[known], rest, generator, trackers, drawn)
        except KeyboardInterrupt:
            break
        total.kills += found.kills
        total.faults += found.faults
        for fault in found.faults:
            print(fault, flush=True)
        print(f"{sum(total.kills.values())} kills, {total.homes} homes, {len(total.faults)} faults", flush=True)
        if keep and found.faults:
            shutil.copytree(own, keep / own.name)
        shutil.rmtree(own)
    return total


def run_undisturbed(home: Path, empty: Path, ladder: Path, words: tuple[str, ...]) -> tuple[list[tuple[str, float]], Any]:
    """Phases and results of a command that nobody kills."""
    shutil.copytree(empty, home)
    whole = Command(home, (words[0], str(ladder), *words[1:]), None)
    if whole.wait():
        sys.exit(whole.log.read_text(encoding="utf-8"))
    return whole.phases(), results(home)


def report(tally: Tally, seed: int) -> None:
    """Print a row for each phase."""
    names = ("SIGKILL", "SIGTERM", "SIGINT")
    print(f"\n{sum(tally.kills.values())} kills in {tally.homes} homes, seed {seed}: {len(tally.faults)} faults\n")
    print("| phase |", " | ".join(names), "|\n|---|" + "--:|" * len(names))
    for phase in (name for name in (*PHASES, COLD) if any(tally.kills[name, each] for each in names)):
        print(f"| {phase} |", " | ".join(str(tally.kills[phase, each]) for each in names), "|")
    print("\n".join(tally.faults))


if __name__ == "__main__":
    main()
