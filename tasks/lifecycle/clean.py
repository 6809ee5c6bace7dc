"""Delete old runs and the results that no kept run reaches.

Kept are runs younger than the age, running ones, and those with a promoted model. A result is deleted when it is old, no kept run
reaches it, and no run has used it since: a run that reuses one renews its time under the lock of its fingerprint, and it is deleted
under the same lock after a second look at the time. So a run that begins meanwhile finds a result complete, or computes it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conf.errors import LadderError, UserError
from conf.home import Home, disk_errors
from models.base.files import read_json
from tasks.lifecycle.reachability import MODELS, Retained, ended, retained
from tasks.records.base import Record
from tasks.records.format import byte_size
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_lock import RunLock
from tasks.store.store import MANIFEST, SHOWN
from tasks.tracking import registry

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
NO_RESULTS = ("set-aside", "writing", "checkpoints")
DOWNLOAD_SECONDS = 3600.0  # a download is not locked while a teacher is copied from it


class Piece(Record):
    """A part of the store, a run's folder or a run in MLflow that was deleted or kept, and why."""

    kind: str
    name: str
    bytes: int
    why: str


class Cleaned(Record):
    """Result of `ladder clean`, or of its dry run."""

    dry_run: bool
    older_than_seconds: float
    freed_bytes: int = 0
    freed: tuple[Piece, ...] = ()
    kept: tuple[Piece, ...] = ()
    notes: tuple[str, ...] = ()


def parse_age(text: str) -> float:
    """Seconds of an age such as `30d`, `12h` or `2w`.

    Raises:
        UserError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text.strip())
    if match is None:
        raise UserError.about(
            "--older-than", text, "a whole number with m, h, d or w (minutes, hours, days, weeks)", "For instance --older-than 30d."
        )
    return float(match[1]) * UNITS[match[2]]


def clean(home: Home, age: float, *, keep_promoted: bool = True, dry_run: bool = False) -> Cleaned:
    """Free results older than `age` seconds and unused by every kept run.

    Args:
        home: The home to clean.
        age: Seconds; 0: everything that is not in use now.
        keep_promoted: Whether runs are kept that have a model with an alias in MLflow's registry.
        dry_run: Whether to report only, and change nothing.

    Raises:
        LadderError: Another process cleans this home, or a run's record cannot be read, so the results that it reaches are unknown.
        RecordUnavailable: MLflow does not answer.
        StoreError: Something cannot be removed.
    """
    if not home.root.is_dir():
        return Cleaned(dry_run=dry_run, older_than_seconds=age)
    with disk_errors(home), _alone(home):
        work = _Cleaning(home, retained(home, age, keep_promoted), dry_run)
        work.run()
        freed = sum(piece.bytes for piece in work.freed)
        lists = {"freed": tuple(work.freed), "kept": tuple(work.kept), "notes": tuple(dict.fromkeys(work.notes))}
        return Cleaned(dry_run=dry_run, older_than_seconds=age, freed_bytes=freed, **lists)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    home.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.locks / "clean.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LadderError(f"Another `ladder clean` is under way in {home.root}; wait for its end.") from None
    try:
        yield
    finally:
        lock.release()


def summary(cleaned: Cleaned) -> str:
    """Text for people: sizes deleted by kind, the runs kept and why, and the total."""
    verb = "would free" if cleaned.dry_run else "freed"
    lines = []
    for kind in dict.fromkeys(piece.kind for piece in cleaned.freed):
        pieces = [piece for piece in cleaned.freed if piece.kind == kind]
        lines.append(f"{verb} {len(pieces):>5} {kind:<12}{_size(pieces):>14}")
    lines += [f"kept {piece.name}: {piece.why}" for piece in cleaned.kept if piece.kind == "run"]
    others = [piece for piece in cleaned.kept if piece.kind != "run"]
    lines += [f"kept {len(others)} results and checkpoints, {_size(others)}; --json tells why each"] if others else []
    lines += [f"note: {note}" for note in cleaned.notes]
    return "\n".join([*lines, f"{verb} {_size(cleaned.freed)}"])


def _size(pieces: Sequence[Piece]) -> str:
    return byte_size(sum(piece.bytes for piece in pieces))


class _Cleaning:
    """One cleaning, with the pieces deleted and kept so far."""

    def __init__(self, home: Home, retained: Retained, dry_run: bool) -> None:
        self.home, self.retained, self.dry_run = home, retained, dry_run
        self.freed: list[Piece] = []
        self.kept: list[Piece] = []
        self.notes: list[str] = []
        self.gone: set[str] = set()  # fingerprints of freed results

    def run(self) -> None:
        """Delete results first, then runs, so that the next cleaning finds what an interrupted one left."""
        for run, why in self.retained.reasons.items():
            self._keep("run", self.home.runs / run, why)
        for kind in sorted(path.name for path in self.home.store.glob("*") if path.is_dir() and path.name not in NO_RESULTS):
            for folder in sorted((self.home.store / kind).glob(f"*-{'?' * SHOWN}")):
                self._result(kind, folder)
        for folder in sorted((self.home.store / "checkpoints").glob("*")):
            self._checkpoints(folder)
        self._leftovers()
        for record in self.retained.doomed:
            self._run(record)

    def _result(self, kind: str, folder: Path) -> None:
        fingerprint, manifest = folder.name[-SHOWN:], _manifest(folder)
        run = self.retained.reached.get(fingerprint)
        if run is None and kind not in ("data", *MODELS):  # evaluations and decisions belong to a model
            run = self.retained.weights.get(str(manifest.get("identity", {}).get("weights")))
        if run is None and manifest.get("run") in self.retained.reasons:
            run = manifest["run"]
        if run is not None:
            self._keep(kind, folder, f"reached by {run}")
        elif self._free_locked(kind, folder, fingerprint, lambda: folder.stat().st_mtime):
            self.gone.add(fingerprint)

    def _checkpoints(self, folder: Path) -> None:
        """Checkpoints: of a run that is kept, or of none."""
        run = _text(folder / "run")
        if run in self.retained.reasons:
            self._keep("checkpoints", folder, f"checkpoints of {run}")
        else:
            self._free_locked("checkpoints", folder, folder.name, lambda: max(path.stat().st_mtime for path in (folder, *folder.iterdir())))

    def _free_locked(self, kind: str, folder: Path, fingerprint: str, moment: Callable[[], float]) -> bool:
        """Delete a folder under the lock of its fingerprint; renamed first, so that none is seen half deleted."""
        try:
            young = moment() >= self.retained.limit
        except FileNotFoundError:
            return False  # a run has just replaced it
        if young:
            self._keep(kind, folder, "made or used lately")
            return False
        if self.dry_run:
            self._count(kind, folder, "no kept run reaches it")
            return True
        with self._claimed(fingerprint) as lock:
            if lock is None or not folder.exists() or moment() >= self.retained.limit:
                self._keep(kind, folder, "in use")
                return False
            self._count(kind, folder, "no kept run reaches it")
            temporary = self.home.store / "writing" / f"{fingerprint}-{os.getpid()}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(temporary)  # a whole folder: no reader sees half of it
            shutil.rmtree(temporary)
            Path(lock.lock_file).unlink()  # a process that waits for it notices, and makes another
            return True

    @contextmanager
    def _claimed(self, fingerprint: str) -> Iterator[FileLock | None]:
        """The lock of a fingerprint; None while another process holds it."""
        lock = FileLock(self.home.locks / f"{fingerprint}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield None
            return
        try:
            yield lock
        finally:
            lock.release()

    def _leftovers(self) -> None:
        """Delete folders without a final name: damaged results, half-written ones of killed processes, models fetched from MLflow."""
        for folder in (self.home.store / "set-aside").glob("*"):
            since = folder.name.rpartition("-")[2]
            if since.isdecimal() and int(since) / 1e9 < self.retained.limit:
                self._free("set-aside", folder, "damaged, and out of use")
        for folder in (self.home.store / "writing").glob("*"):
            with self._claimed(folder.name.partition("-")[0]) as lock:
                if lock is not None and folder.exists():
                    self._free("writing", folder, "left by a process that was killed")
                    if not self.dry_run:
                        Path(lock.lock_file).unlink()
        for folder in (self.home.mlflow / "downloads").glob("*"):
            if not self.retained.running and folder.stat().st_mtime < min(self.retained.limit, time.time() - DOWNLOAD_SECONDS):
                self._free("download", folder, "fetched again when it is needed")
        for folder in self.home.remote.glob("*/records/*/*"):
            if folder.stat().st_mtime < self.retained.limit:
                self._free("records", folder, "fetched again when a plan needs them")

    def _run(self, record: RunRecord) -> None:
        """Delete a run's folder and its runs in MLflow, unless it is continued now or holds a model in use."""
        folder, lock = self.home.runs / record.run, RunLock(self.home, record.run)
        if not lock.take():
            self._keep("run", folder, "it is running")
            return
        try:
            if ended(self.home, record) >= self.retained.limit:
                self._keep("run", folder, "it ended just now")
            elif self._mlflow(record):
                self._keep("run", folder, "MLflow keeps a model with it that others use")
            else:
                self._free("run", folder, "old")
                if not self.dry_run:
                    Path(lock.lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()

    def _mlflow(self, record: RunRecord) -> bool:
        """Delete a run's runs in MLflow; True where one had to stay, and with it their parent."""
        tracker, stays = self.retained.tracker, False
        if record.mlflow_run_id is None:
            return False
        if tracker is None:
            self.notes.append(f"the record of {record.run} in MLflow at {record.mlflow_uri} stays: MLflow is off")
            return False
        tree = registry.run_tree(tracker, record.mlflow_run_id)
        if not tree and record.mlflow_uri != tracker.uri:
            self.notes.append(f"the record of {record.run} in MLflow at {record.mlflow_uri} stays: that is not the present address")
        for run in tree:  # the parent comes last
            run_id = run.info.run_id
            if run_id in self.retained.registry.runs or self._lends(run) or (stays and run_id == record.mlflow_run_id):
                stays = True
                continue
            size = registry.artifact_bytes(tracker, run)
            self.freed.append(Piece(kind="mlflow", name=f"{record.run}/{run.info.run_name}", bytes=size, why="old"))
            if not self.dry_run:
                registry.discard(tracker, run)
            if not registry.is_ours(tracker, run):
                self.notes.append(f"runs in MLflow at {tracker.uri} are only marked as deleted; `mlflow gc` there frees their artifacts")
        return stays

    def _lends(self, run: Any) -> bool:
        """Whether an MLflow run holds the bytes of a stored model, to which other runs may be linked."""
        tracker, fingerprint = self.retained.tracker, run.data.tags.get("ladder.fingerprint", "none")[:SHOWN]
        stored = any(True for kind in MODELS for _ in (self.home.store / kind).glob(f"*-{fingerprint}")) and fingerprint not in self.gone
        return tracker is not None and (stored or fingerprint in self.retained.reached) and registry.holds_model(tracker, run)

    def _keep(self, kind: str, path: Path, why: str) -> None:
        self.kept.append(Piece(kind=kind, name=path.name, bytes=registry.folder_bytes(path), why=why))

    def _count(self, kind: str, path: Path, why: str) -> None:
        self.freed.append(Piece(kind=kind, name=path.name, bytes=registry.folder_bytes(path), why=why))

    def _free(self, kind: str, path: Path, why: str) -> None:
        self._count(kind, path, why)
        if not self.dry_run:
            shutil.rmtree(path)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return {}  # damaged: no run can use it
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("identity"), dict) else {}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
