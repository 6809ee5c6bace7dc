"""Short records of all runs, in one file: a list of a thousand is read at once.

`runs/index.jsonl` has a line for each run that has ended: what names its record's file as it was read, and the record without the parts
that only a page of the run shows. It can be deleted at any time: missing and outdated lines are read from the records again.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from conf.atomic import write_atomic
from conf.home import Home
from tasks.records.base import Record
from tasks.records.run import RunRecord, StageRecord

LONG = {"identity", "slices", "also", "tasks", "samples", "initial", "bench", "audit", "members"}  # parts of a model's record
SLACK = 16  # lines that are no longer true, beside as many as true ones
FORM = f"{'|'.join((*RunRecord.model_fields, *StageRecord.model_fields))}"  # an index of other fields is made anew


class ShortRun(RunRecord):
    """A run's record without data and environment, and without identities, slices, audits, speeds and members of models; never saved."""


class IndexLine(Record):
    """One line of the index: size, inode and time of the file of a record, and the record in short."""

    file: tuple[int, int, int]
    record: ShortRun


def short(record: RunRecord) -> ShortRun:
    """A record in short."""
    models = {"__all__": LONG}
    plain = record.model_dump(exclude={"data": True, "environment": True, "teacher": LONG, "stages": models}, exclude_defaults=True)
    for model in (*([plain["teacher"]] if record.teacher else []), *plain.get("stages", ())):
        model["identity"] = {}
    return ShortRun.model_validate(plain)


def short_runs(home: Home, read: Callable[[Path], RunRecord | None]) -> list[ShortRun]:
    """The records of all runs that can be read, in short and in no order.

    Args:
        home: Where the runs are.
        read: Reads a record; None where it cannot be read.
    """
    files = dict(_files(home.runs))
    with no_collection():
        known, lines = _indexed(home.runs, files)
        found, more = list(known.values()), []
        for name in files.keys() - known.keys():
            record = read(home.runs / name / "record.json")
            if record is None:
                continue
            found.append(short(record))
            if record.status != "running":  # that one changes
                more.append(IndexLine(file=files[name], record=found[-1]))
        if more:
            _add(home.runs, more, None if 0 < lines < 2 * len(known) + SLACK else known, files)
    return found


def _files(runs: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Names of runs, each with what changes when its record is replaced."""
    if not runs.is_dir():
        return
    with os.scandir(runs) as folders:
        for folder in folders:
            try:
                file = os.stat(os.path.join(folder.path, "record.json"))
            except OSError:
                continue
            yield folder.name, (file.st_size, file.st_ino, file.st_mtime_ns)


def _indexed(runs: Path, files: dict[str, tuple[int, int, int]]) -> tuple[dict[str, ShortRun], int]:
    """Records by run whose files are as they were, and the number of lines of the index; 0: there is none that can be used."""
    try:
        head, *lines = (runs / "index.jsonl").read_bytes().splitlines()
    except (OSError, ValueError):
        return {}, 0
    if head != FORM.encode():
        return {}, 0
    found: dict[str, ShortRun] = {}
    for line in lines:
        try:
            read = IndexLine.model_validate_json(line)
        except ValidationError:  # half a line of a process that was killed
            continue
        if files.get(read.record.run) == read.file:
            found[read.record.run] = read.record
    return found, len(lines) + 1


def _add(runs: Path, more: list[IndexLine], known: dict[str, ShortRun] | None, files: dict[str, tuple[int, int, int]]) -> None:
    """Add lines to the index, or write it anew with the lines `known`. A full disk changes nothing."""
    path = runs / "index.jsonl"
    try:
        kept = [IndexLine(file=files[run], record=record) for run, record in (known or {}).items()]
        text = "".join(f"{line.model_dump_json(exclude_defaults=True)}\n" for line in (*kept, *more))
        if known is None:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{text}")  # after half a line, too
        else:
            write_atomic(path, f"{FORM}\n{text}")
    except OSError:
        return


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the collection of circular garbage: there is none, and a search for it takes longer than reading a thousand records."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
