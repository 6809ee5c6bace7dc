"""Exports of a finished run: choose the student, export it, keep the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from filelock import FileLock

from conf.atomic import write_atomic
from conf.errors import ExportRefused, UserError
from conf.home import Home, disk_errors
from conf.loading.introspect import suggest
from conf.schema.ladder import Ladder
from conf.schema.shipping.exports import Export
from tasks.export.deliver import check_free, deliver
from tasks.export.export import Exporter, check_exports, export_identity
from tasks.records.export import FILE, ExportRecord, RunExports, read_exports
from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.at_hand import at_hand
from tasks.runtime.runs.run_registry import Context
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker


def chosen_stage(home: Home, record: RunRecord, stage: str | None, key: str = "--stage") -> tuple[StageRecord, DataRecord]:
    """A finished student of a run, the last one where none is named, and its data; fetched from the object store where the home lacks them.

    Raises:
        UserError: There is no such student, or its folder or its data are gone.
    """
    names = [each.name for each in record.stages]
    if not names:
        raise UserError.about("RUN", record.run, "a run with a finished student", "This one ended before its first stage was ready.")
    wanted = stage or names[-1]
    if wanted not in names:
        remedy = f"{suggest(wanted, names)}Only students are exported."
        raise UserError.about(key, wanted, f"a finished stage of {record.run}: {', '.join(names)}", remedy)
    found = next(each for each in reversed(record.stages) if each.name == wanted)
    assert record.data is not None
    store = Store(home, log.warning)
    found, data = at_hand(store, found) or found, at_hand(store, record.data) or record.data
    for what, file in (("its student", Path(found.folder) / "config.json"), ("its data", Path(data.folder) / "corpus.json")):
        if not file.is_file():
            remedy = "Run the ladder again."
            raise UserError.about("RUN", record.run, f"a run whose models and data are in the store; {what} of {wanted} is not", remedy)
    return found, data


def export_run(
    home: Home, record: RunRecord, ladder: Ladder, exports: Sequence[Export], stage: str | None = None, to: Path | None = None
) -> list[ExportRecord]:
    """Export a student of a run in some formats, and copy those that are inside their tolerance to a folder.

    Args:
        home: The home.
        record: The run.
        ladder: Its settings.
        exports: The formats.
        stage: The student; None: the last one.
        to: Folder of one format, or of a folder for each of several; None: they stay in the store alone.

    Raises:
        UserError: A format, the student or the folder is refused, before any work.
        ExportRefused: Some are outside their tolerance; the others are made.
    """
    student, data = chosen_stage(home, record, stage)
    check_exports(exports, student, ladder, "--format")
    places = {export.name: to if len(exports) == 1 else to / export.name for export in exports} if to is not None else {}
    if to is not None and len(exports) > 1 and to.exists() and not to.is_dir():
        check_free(to, "")
    for export in exports:
        if export.name in places:
            check_free(places[export.name], fingerprint(export_identity(export, student, data)))
    context = Context(run=record.run, ladder=record.ladder, home=str(home.root), base=str(home.root), mlflow_run_id=record.mlflow_run_id)
    made: list[ExportRecord] = []
    with Exporter(student, ladder, data, context) as exporter:
        for export in exports:
            found = export_student(exporter, export, record)
            made.append(found)
            if not found.refused and export.name in places:
                deliver(found, places[export.name])
    return made


def export_student(exporter: Exporter, export: Export, record: RunRecord) -> ExportRecord:
    """Find or make one export of a run's student, and keep its record; one outside its tolerance says so in its record."""
    found = exporter.export(export)
    keep_exports(exporter.context.paths, record, exporter.record, [found])
    return found


def require_inside(exports: Sequence[ExportRecord]) -> None:
    """Refuse exports that are outside their tolerance.

    Raises:
        ExportRefused: Naming each of them and why.
    """
    refused = [f"{each.stage} as {each.name} is outside its tolerance: {each.refused}" for each in exports if each.refused]
    if refused:
        raise ExportRefused(f"{'. '.join(refused)}. Nothing of it was left in a folder.")


def keep_exports(home: Home, record: RunRecord, student: StageRecord, exports: Sequence[ExportRecord]) -> None:
    """Add exports to those of a run, in place of earlier ones of the same student and format; here and in MLflow."""
    folder = Path(record.folder)
    with disk_errors(home):
        home.locks.mkdir(parents=True, exist_ok=True)
        with FileLock(home.locks / f"exports-{record.run}.lock"):
            new = {(each.stage, each.name): each for each in exports}
            kept = {(each.stage, each.name): each for each in read_exports(record)} | new
            whole = RunExports(exports=tuple(kept.values()))
            write_atomic(folder / FILE, whole.model_dump_json(indent=1))
    act = partial(_record, exports=exports, file=folder / FILE)
    recorder_of(home, record.run).attempt(f"{student.name} (exports)", student.mlflow_run_id, act)


def _record(tracker: Tracker, run_id: str, exports: Sequence[ExportRecord], file: Path) -> None:
    """Figures of exports in the student's MLflow run; their bytes stay in the store."""
    tracker.log_artifact(run_id, file)
    points = []
    for each in exports:
        stamp = int(datetime.fromisoformat(each.made).timestamp() * 1000)
        figures = {
            "kl": each.difference.kl,
            "agreement": each.difference.agreement,
            "largest_difference": each.difference.largest,
            "request_p50_ms": 1000 * each.export.request.p50,
            "peak_mib": each.export.peak_bytes / 2**20,
            "mib": each.export.bytes / 2**20,
            **each.export.quality,
        }
        points += [(f"export/{each.name}/{key}", value, 0, stamp) for key, value in figures.items() if math.isfinite(value)]
    tracker.log_points(run_id, points)
    tracker.set_tags(run_id, {f"ladder.export.{each.name}": each.refused or each.fingerprint for each in exports})
