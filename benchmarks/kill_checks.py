"""Checks of a run that was killed: record, trackers, processes and figures."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from tasks.runtime.runs.run_registry import DIED
from tests.flows.served import PrefectServer


def record_of(home: Path) -> dict[str, Any]:
    """The newest record of a home, and its proof; empty where there is none."""
    found = sorted(home.glob("runs/*/record.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        return {}
    record = json.loads(found[-1].read_text(encoding="utf-8"))
    proof = found[-1].with_name("proof.json")
    return {**record, "proof_result": json.loads(proof.read_text(encoding="utf-8")) if proof.exists() else None}


PASSING = {"seconds", "signal_seconds", "all_signal_seconds", "reused", "reused_from", "resumed_at", "folder", "bench", "mlflow_run_id"}
PASSING |= {"prefect_run_id", "run", "signals", "money", "verdict"}  # these tell how long it took


def figures(value: Any) -> Any:
    """Values that two runs must have in common: everything but times, places and ids."""
    if isinstance(value, dict):
        return {key: figures(item) for key, item in value.items() if key not in PASSING and "seconds" not in key}
    return [figures(item) for item in value] if isinstance(value, list) else value


def differences(found: Any, wanted: Any, key: str = "") -> list[str]:
    """Keys at which two results differ, with both values; the first five."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs = [(str(name), found.get(name), wanted.get(name)) for name in (*wanted, *(name for name in found if name not in wanted))]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(str(index), *pair) for index, pair in enumerate(zip(found, wanted, strict=True))]
    else:
        return [] if found == wanted else [f"{key} is {str(found)[:100]}, not {str(wanted)[:100]}"]
    return [each for name, one, other in pairs for each in differences(one, other, f"{key}.{name}")][:5]


def results(home: Path) -> Any:
    """Models and proof of the newest run, without times, places and ids."""
    record = record_of(home)
    return figures({key: record.get(key) for key in ("teacher", "stages", "proof_result", "status", "error")})


def select(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a SQLite database."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return connection.execute(query).fetchall()


class Trackers:
    """States of runs in MLflow's and Prefect's databases."""

    MLFLOW = """
select exists (select 1 from tags where tags.run_uuid = runs.run_uuid and key = 'ladder.run'), status
from runs where lifecycle_stage = 'active'
"""

    def __init__(self, server: PrefectServer) -> None:
        self.server = server

    def mlflow(self, home: Path) -> list[tuple[bool, str]]:
        """Whether it is a ladder run, and its status, of every run."""
        return [(bool(ladder), status) for ladder, status in select(home / "mlflow" / "mlflow.db", self.MLFLOW)]

    def open_states(self, home: Path, since: str) -> list[str]:
        """Flow runs and task runs in no final state: of the embedded server of a home, or those that began since a time."""
        final, found = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), []
        if (embedded := home / "prefect" / "prefect.db").exists():
            query = "select name, state_type from flow_run union all select name, state_type from task_run"
            return [f"{name}: {state}" for name, state in select(embedded, query) if state not in final]
        after = {"start_time": {"after_": since}}
        for kind, filters in (("flow_runs", {"flow_runs": after}), ("task_runs", {"task_runs": after})):
            runs = self.server.found(kind, **filters, limit=200)
            found += [f"{run['name']}: {run['state_name']}" for run in runs if run["state_type"] not in final]
        return found

    def state(self, flow_run: str) -> tuple[str, str]:
        """Type and name of a flow run's state."""
        (run,) = self.server.found("flow_runs", flow_runs={"id": {"any_": [flow_run]}})
        return run["state_type"], run["state_name"]


def left_processes(session: int, home: Path) -> list[str]:
    """Processes of a session, or with this home, half a minute after the command has ended."""
    until = time.monotonic() + 30
    while True:
        left = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session or process.environ().get("LADDER_HOME") == str(home):
                    left.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
            except (psutil.Error, ProcessLookupError):
                continue
        left = [each for each in left if not each.startswith(f"{os.getpid()} ")]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


def check_interrupted(home: Path, trackers: Trackers, code: int) -> list[str]:
    """Faults after a SIGTERM or SIGINT."""
    record = record_of(home)
    earlier = record.get("error") == DIED  # the signal came while an attempt that had died before was being settled
    if code != 130 or not record or earlier or record["status"] in ("done", "running"):
        return [] if code in (0, 130) else [f"exit code {code}"]
    kind, name = trackers.state(record["prefect_run_id"])
    faults = [] if (kind, name) == ("CANCELLED", "Interrupted") else [f"Prefect shows {kind}, {name}"]
    faults += [] if record["status"] == "interrupted" else [f"the record says {record['status']}"]
    killed = [status for ladder, status in trackers.mlflow(home) if ladder]
    return faults + ([] if killed in (["KILLED"], []) else [f"MLflow says {killed}"])
