"""The record of every ladder run, in `runs/<run>/`: readable without MLflow and without Prefect."""

from __future__ import annotations

import functools
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from conf.errors import UserError
from conf.home import Home, disk_errors
from conf.loading.load import suggest
from conf.locks import is_held
from tasks.records.base import Record
from tasks.records.run import RunRecord, StageRecord, Status
from tasks.runtime.logs import log
from tasks.store.store import Store

DIED = "the process ended without a word"


PLAN = "plan"  # in place of a run's name, where nothing is computed


class Context(Record):
    """What every task needs to know of the run that it works for; plain JSON, since it is a parameter of the stages' flows."""

    run: str
    ladder: str
    home: str
    base: str  # relative paths in the settings count from here
    fresh: bool = False
    start_at: str | None = None
    kept: tuple[str, ...] = ()  # models before `start_at`: reused, never computed
    mlflow_run_id: str | None = None
    tags: dict[str, str] = Field(default={})  # of the models' runs in MLflow

    @property
    def made(self) -> dict[str, str]:
        """Who computes, as the store's manifests note it."""
        return {"run": self.run, "ladder": self.ladder}

    @property
    def paths(self) -> Home:
        """The home of this run."""
        return Home(Path(self.home))


def lock_path(home: Home, run: str) -> Path:
    """The file whose lock a run holds as long as it lives."""
    return home.locks / f"run-{run}.lock"


def is_alive(home: Home, run: str) -> bool:
    """Whether the process of a run lives."""
    return is_held(lock_path(home, run))


class RunLock:
    """Held while a run is alive; the kernel lets it go when the process dies, which is how a dead run is known."""

    def __init__(self, home: Home, run: str) -> None:
        home.locks.mkdir(parents=True, exist_ok=True)
        self.run = run
        self.lock = FileLock(lock_path(home, run))

    def take(self) -> bool:
        """Try to take it; False while another process holds it."""
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Let it go."""
        self.lock.release()


def now() -> str:
    """The time, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_name(ladder: str) -> str:
    """A name for a run: the ladder, the time, and three characters against collisions."""
    return f"{ladder}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)[:3]}"


def save(home: Home, record: RunRecord) -> None:
    """Write `record.json`, whole or not at all."""
    folder = home.runs / record.run
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"record.{os.getpid()}.writing"
        aside.write_text(record.model_dump_json(indent=1))
        aside.replace(folder / "record.json")


def load_run(home: Home, run: str | None = None) -> RunRecord:
    """The record of a run, or of the last one; a run that claims to be running but whose process is gone shows as interrupted.

    Raises:
        UserError: There is no such run, or none at all.
    """
    records = all_runs(home)
    if not records:
        raise UserError.about("LADDER_HOME", str(home.root), "a home in which something ran", "Run `ladder run digits` first.")
    if run is None:
        return records[0]
    for record in records:
        if record.run == run:
            return record
    names = [record.run for record in records]
    raise UserError.about("RUN", run, "a run of this home", f"{suggest(run, names)}`ladder runs` shows them.")


def all_runs(home: Home) -> list[RunRecord]:
    """All records, the newest first."""
    records = [_seen(home, record) for path in home.runs.glob("*/record.json") if (record := _read(path)) is not None]
    return sorted(records, key=lambda record: (record.started, record.run), reverse=True)


def _read(path: Path) -> RunRecord | None:
    """A record, parsed once by this process as long as its file stays the same one; None: of another version, or being written."""
    try:
        known = path.stat()
        return _parsed(path, known.st_ino, known.st_mtime_ns, known.st_size)
    except (OSError, ValidationError):
        return None


@functools.lru_cache(maxsize=4096)
def _parsed(path: Path, *_: int) -> RunRecord:
    return RunRecord.model_validate_json(path.read_text())


def unfinished(home: Home, settings_hash: str, start_at: str | None, fresh: bool) -> RunRecord | None:
    """The newest run of the same command that died, was interrupted or cancelled, to be continued."""
    for record in all_runs(home):
        if (record.settings_hash, record.start_at, record.fresh) == (settings_hash, start_at, fresh):
            return record if record.status in ("interrupted", "cancelled") else None
    return None


def original_mlflow_run(home: Home, record: StageRecord) -> str | None:
    """MLflow run of the ladder run that computed a reused model, if that run is still known."""
    known = _read(home.runs / (record.reused_from or "") / "record.json")
    if known is None:
        return None
    made = [m for m in (known.teacher, *known.stages) if m and m.fingerprint == record.fingerprint]
    return made[0].mlflow_run_id if made else None


def mark_interrupted(home: Home, run: str) -> RunRecord | None:
    """Write down that a run's process has died; None where it lives, has ended, or is continued by another."""
    return _amend(home, run, "running", {"status": "interrupted", "error": DIED, "waiting": None, "finished": now()})


def note_mlflow_run(home: Home, run: str, mlflow_run_id: str) -> None:
    """Write down the MLflow run of a run that was killed before it could do so, unless it is continued by now."""
    _amend(home, run, "interrupted", {"mlflow_run_id": mlflow_run_id})


def note_restart(home: Home, run: str, said: str) -> None:
    """Write down what was started in place of a run that has died, or why nothing was, unless it is continued by now."""
    _amend(home, run, "interrupted", {"restarted": said})


def ask_to_end(home: Home, record: RunRecord) -> bool:
    """Send SIGTERM to the process of a run; False where the process of that number here is not the one that holds the run's lock.

    The number may be another's by now, or count in a container that shares the home.
    """
    import psutil

    path = lock_path(home, record.run).resolve()
    try:
        process = psutil.Process(record.pid)
        ours = is_alive(home, record.run) and any(Path(file.path) == path for file in process.open_files())
        if ours:
            process.terminate()  # not where the number is another's since the line above
    except psutil.Error:
        return False
    return ours


def _amend(home: Home, run: str, status: Status, update: dict[str, Any]) -> RunRecord | None:
    """Change the record of a run without a process; None where it has one, or another status than this."""
    lock = RunLock(home, run)
    if not lock.take():
        return None
    try:
        record = RunRecord.model_validate_json((home.runs / run / "record.json").read_text())
        if record.status != status:
            return None
        record = record.model_copy(update=update)
        save(home, record)
        return record
    finally:
        lock.release()


def _seen(home: Home, record: RunRecord) -> RunRecord:
    if record.status != "running" or is_alive(home, record.run):
        return record
    return record.model_copy(update={"status": "interrupted", "error": DIED})


def store_of(context: Context) -> Store:
    """The store of a run; what it has to say goes to the log."""
    return Store(context.paths, log.warning)
