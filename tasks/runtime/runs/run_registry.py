"""Records of ladder runs in `runs/<run>/`, readable without Prefect and MLflow."""

from __future__ import annotations

import functools
import itertools
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, ValidationError

from conf.atomic import write_atomic
from conf.errors import UserError, reason_of
from conf.home import Home, disk_errors, require_readable
from conf.loading.introspect import suggest
from tasks.records.base import Record
from tasks.records.run import Kind, RunRecord, StageRecord, Status
from tasks.runtime.logs import log
from tasks.runtime.runs.run_index import ShortRun, no_collection, short_runs
from tasks.runtime.runs.run_lock import RunLock, is_alive
from tasks.store.store import Store

R = TypeVar("R", bound=RunRecord)

DIED = "the process ended without recording its end"
END = "end of the run"  # in `RunRecord.unrecorded`, as long as MLflow's run is not closed
PLAN = "plan"  # in place of a run's name, where nothing is computed


class Context(Record):
    """The run that a step works for; plain JSON, since it is a parameter of the stages' flows."""

    run: str
    ladder: str
    home: str
    base: str  # relative paths in the settings count from here
    fresh: bool = False
    start_at: str | None = None
    kept: tuple[str, ...] = ()  # models before `start_at`: reused, never computed
    mlflow_run_id: str | None = None
    tags: dict[str, str] = Field(default={})  # of the models' runs in MLflow
    system_metrics: bool = False  # whether MLflow records the machine's load during trainings

    @property
    def made(self) -> dict[str, str]:
        """The run and its ladder, as the store's manifests record them."""
        return {"run": self.run, "ladder": self.ladder}

    def is_fresh(self, name: str) -> bool:
        """Whether `--fresh` asks to compute this model's results anew: to every model, or to those from `--start-at` on.

        That is its training or import, its evaluation, speed and audit. Not anew are corpora, which are inputs named by their content,
        cached teacher signals, which every training compares with its teacher, and decisions of people.
        """
        return self.fresh and name not in self.kept

    @property
    def paths(self) -> Home:
        """The home of this run."""
        return Home(Path(self.home))


def now() -> str:
    """The time, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def not_before(earlier: str) -> str:
    """The time, or that of an earlier event where the clock has been set back since."""
    return max(now(), earlier, key=datetime.fromisoformat)


def new_name(home: Home, ladder: str, kind: Kind = "ladder", asked: str | None = None) -> str:
    """A name that no run of this home has: the one asked for, numbered if it is taken, else ladder, kind, three characters and the time.

    The characters come before the time, because lists on a page show about the first twenty of a name.
    """
    if asked:
        names = (asked if number == 1 else f"{asked}-{number}" for number in itertools.count(1))
    else:
        stem = ladder if kind == "ladder" else f"{ladder}-{kind}"
        names = (f"{stem}-{secrets.token_hex(2)[:3]}-{datetime.now(UTC):%Y%m%d-%H%M}" for _ in itertools.count())
    return next(name for name in names if not (home.runs / name).exists() and not is_alive(home, name))


def save(home: Home, record: RunRecord) -> None:
    """Write `record.json` atomically."""
    assert not isinstance(record, ShortRun)
    folder = home.runs / record.run
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "record.json", record.model_dump_json(indent=1))


def load_run(home: Home, run: str | None = None) -> RunRecord:
    """The record of a run, or of the last one; one that says `running` while its process has ended is returned as interrupted.

    Raises:
        UserError: There is no such run, or none at all.
    """
    records = list_runs(home)
    for damaged in unreadable_runs(home, records):
        if damaged.run == run or not records:
            remedy = f"It is damaged, or of another version of Ladder ({damaged.reason}): restore it, or move its folder away."
            raise UserError.about("RUN", damaged.run, f"a run whose record, {damaged.path}, can be read", remedy)
    if not records:
        raise UserError.about("LADDER_HOME", str(home.root), "a home in which something ran", "Run `ladder run digits` first.")
    names = [record.run for record in records]
    full = full_record(home, run or names[0]) if run is None or run in names else None
    if full is None:
        raise UserError.about("RUN", run, "a run of this home", f"{suggest(run or '', names)}`ladder runs` shows them.")
    return full


def all_runs(home: Home) -> list[RunRecord]:
    """All records, the newest first; where the short ones do, `list_runs` takes a tenth of the time and memory.

    Raises:
        StoreError: The home is another user's.
    """
    require_readable(home)
    with no_collection():
        records = [_seen(home, record) for path in home.runs.glob("*/record.json") if (record := _read(path)) is not None]
    return sorted(records, key=lambda record: (record.started, record.run), reverse=True)


def list_runs(home: Home) -> list[ShortRun]:
    """All records in short, the newest first; errors as `all_runs`."""
    require_readable(home)
    records = [_seen(home, record) for record in short_runs(home, _read)]
    return sorted(records, key=lambda record: (record.started, record.run), reverse=True)


def full_record(home: Home, run: str) -> RunRecord | None:
    """The whole record of a run; None where it cannot be read."""
    record = _read(home.runs / run / "record.json")
    return None if record is None else _seen(home, record)


class UnreadableRun(NamedTuple):
    """A run whose record is damaged, or of another version of Ladder."""

    run: str
    path: Path
    reason: str
    written: str  # ISO 8601, UTC


def unreadable_runs(home: Home, readable: Sequence[RunRecord]) -> list[UnreadableRun]:
    """The runs that are not among those that `list_runs` could read, by name."""
    found, known = [], {record.run for record in readable}
    for path in sorted(path for path in home.runs.glob("*/record.json") if path.parent.name not in known):
        try:
            _parse(path)
        except FileNotFoundError:
            continue  # cleaned meanwhile
        except (OSError, ValueError) as fault:
            written = datetime.fromtimestamp(path.lstat().st_mtime, UTC).isoformat(timespec="seconds")
            found.append(UnreadableRun(path.parent.name, path, _why(fault), written))
    return found


def _why(fault: Exception) -> str:
    if not isinstance(fault, ValidationError):
        return reason_of(fault)
    first = fault.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'record.json'}: {first['msg']}"


def _read(path: Path) -> RunRecord | None:
    """A record, parsed once per process while its file is unchanged; None: of another version, or being written."""
    try:
        file = path.stat()
        return _parsed(path, file.st_ino, file.st_mtime_ns, file.st_size)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=4096)
def _parsed(path: Path, *_: int) -> RunRecord:
    return _parse(path)


def _parse(path: Path) -> RunRecord:
    record = RunRecord.model_validate_json(path.read_bytes())
    if record.run != path.parent.name:
        raise ValueError(f"it is the record of another run, {record.run}")
    return record


def unfinished(home: Home, settings_hash: str, start_at: str | None, fresh: bool) -> RunRecord | None:
    """The newest run of the same command that died, was interrupted or cancelled, to be continued."""
    for record in list_runs(home):
        if (record.settings_hash, record.start_at, record.fresh) == (settings_hash, start_at, fresh):
            return full_record(home, record.run) if record.status in ("interrupted", "cancelled") else None
    return None


def original_mlflow_run(home: Home, record: StageRecord) -> str | None:
    """Id of the MLflow run that recorded a reused model first; None where its ladder run is gone."""
    original = _read(home.runs / (record.reused_from or "") / "record.json")
    if original is None:
        return None
    made = [model for model in original.models if model.fingerprint == record.fingerprint]
    return made[0].mlflow_run_id if made else None


def mark_interrupted(home: Home, run: str) -> RunRecord | None:
    """Record a dead run as interrupted; None where it is alive, has ended, or is continued by another process."""
    return _amend(home, run, "running", {"status": "interrupted", "error": DIED, "waiting": None})


def with_open_end(record: RunRecord) -> tuple[str, ...]:
    """Parts that MLflow lacks of a run that ends now, its end included; closing it in MLflow removes that one."""
    kept = tuple(text for text in record.unrecorded if not text.startswith(f"{END}: "))
    return (*kept, f"{END}: {DIED}") if record.mlflow_uri else kept


def note_restart(home: Home, run: str, restarted: str) -> None:
    """Record the flow run that restarts a dead run, or why there is none, unless the run is continued by now."""
    _amend(home, run, "interrupted", {"restarted": restarted})


def _amend(home: Home, run: str, status: Status, update: dict[str, Any]) -> RunRecord | None:
    """Change the record of a run without a process; None where it has one, or another status than this."""
    with ended_run(home, run) as record:
        if record is None or record.status != status:
            return None
        if status == "running":
            update = {**update, "unrecorded": with_open_end(record), "finished": not_before(record.started)}
        record = record.model_copy(update=update)
        save(home, record)
        return record


@contextmanager
def ended_run(home: Home, run: str) -> Iterator[RunRecord | None]:
    """The record of a run without a process, which no process continues meanwhile; None where it has one."""
    lock = RunLock(home, run)
    if not lock.take():
        yield None
        return
    try:
        yield RunRecord.model_validate_json((home.runs / run / "record.json").read_text(encoding="utf-8"))
    finally:
        lock.release()


def _seen(home: Home, record: R) -> R:
    if record.status != "running" or is_alive(home, record.run):
        return record
    return record.model_copy(update={"status": "interrupted", "error": DIED})


def store_of(context: Context) -> Store:
    """The store of a run, with its warnings in the log."""
    return Store(context.paths, log.warning)
