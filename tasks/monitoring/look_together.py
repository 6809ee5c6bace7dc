"""Look at several versions, side by side on a Dask cluster if there is one.

The windows of one version are judged one after the other, since each rests on those before it; so a job is all new windows of a version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from conf.errors import LadderError
from conf.home import Home, home
from conf.schema.ladder import Ladder
from tasks.monitoring.history import write_entry
from tasks.monitoring.look import Looked, NewWindows, judge_windows, look, new_windows
from tasks.monitoring.reference import Watched
from tasks.monitoring.windows import Window, row_key
from tasks.records.base import Record
from tasks.records.monitoring import WindowEntry
from tasks.records.run import DataRecord, RunRecord
from tasks.records.window import WindowRow
from tasks.registry.versions import Version
from tasks.runtime.cluster.client import Cluster, cluster_address
from tasks.runtime.cluster.localise import data_here, model_here
from tasks.runtime.cluster.program import answer_lines
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context

PROGRAM = "tasks.monitoring.look_together"
VERSION = TypeAdapter(Version)


class GivenWindow(Record):
    """A window that was read."""

    path: str
    content: str
    rows: tuple[WindowRow, ...]
    problems: tuple[str, ...]
    unusable: str | None


class LookJob(Record):
    """New windows of a version, and all that their judgement rests on.

    Attributes:
        asks_teacher: Whether its root teacher is asked, too.
    """

    home: str
    version: dict[str, Any]
    record: RunRecord
    ladder: dict[str, Any]
    data: DataRecord
    asks_teacher: bool
    history: tuple[WindowEntry, ...]
    windows: tuple[GivenWindow, ...]


class LookOutcome(Record):
    """Windows that were judged.

    Attributes:
        entries: In their order.
        unseen: The folder of pictures that the machine does not see; None: it sees all.
        failed: Why they could not be judged.
    """

    entries: tuple[WindowEntry, ...] = ()
    unseen: str | None = None
    failed: str | None = None


def look_together(home: Home, watched: Sequence[Watched], pattern: str | None) -> Iterator[Looked]:
    """Judge the new windows of several versions, each as `look` does; arguments and errors as there.

    With a cluster in `LADDER_CLUSTER`, and new windows of more than one version, the workers of the cluster judge them.

    Raises:
        LadderError: A worker could not judge a version's windows; those of others are kept.
    """
    address = cluster_address()
    found = _on_cluster(home, watched, pattern, address) if address else None
    yield from found or (look(home, seen, pattern, seen.ladder.monitoring) for seen in watched)


def _on_cluster(home: Home, watched: Sequence[Watched], pattern: str | None, address: str) -> list[Looked] | None:
    """Results of the workers, one for each watched model; None where there is no work for two of them."""
    with ExitStack() as stack:
        new = [stack.enter_context(new_windows(home, seen, pattern, seen.ladder.monitoring)) for seen in watched]
        numbers = [number for number, each in enumerate(new) if each.windows]
        if len(numbers) < 2:
            return None
        found = [Looked(put_off=each.put_off) for each in new]
        cluster = stack.enter_context(Cluster(address, None))
        lines = [job_of(home, watched[number], new[number]).model_dump_json() for number in numbers]
        for place, answer in cluster.answers(PROGRAM, lines):
            number = numbers[place]
            for entry in _entries(answer, home, watched[number], new[number]):
                write_entry(home, entry)
                found[number].entries.append(entry)
        return found


def job_of(home: Home, seen: Watched, new: NewWindows) -> LookJob:
    """The job to judge new windows of a version."""
    return LookJob(
        home=str(home.root),
        version=VERSION.dump_python(seen.version, mode="json"),
        record=seen.record,
        ladder=seen.ladder.model_dump(mode="json"),
        data=seen.data,
        asks_teacher=bool(seen.ladder.monitoring.shadow_rows) and seen.root is not None,
        history=tuple(new.history),
        windows=tuple(
            GivenWindow(
                path=str(window.path),
                content=window.content,
                rows=tuple(window.rows),
                problems=tuple(window.problems),
                unusable=window.unusable,
            )
            for window in new.windows
        ),
    )


def _entries(answer: str, home: Home, seen: Watched, new: NewWindows) -> Iterable[WindowEntry]:
    """The windows that a worker has judged, or that are judged here since it does not see their pictures."""
    outcome = LookOutcome.model_validate_json(answer)
    if outcome.failed:
        raise LadderError(outcome.failed)
    if outcome.unseen:
        log.info("cluster: a worker does not see %s, so the windows of %s are judged here", outcome.unseen, seen.version.name)
        return judge_windows(home, seen, seen.ladder.monitoring, new.history, new.windows)
    return outcome.entries


def judge_job(job: LookJob) -> LookOutcome:
    """Judge the windows of a job on this machine.

    Raises:
        LadderError: The version, its data or its teacher cannot be found, or used.
    """
    ladder = Ladder.model_validate(job.ladder)
    folders = {str(Path(window.path).parent) for window in job.windows} if ladder.workload == "image-classification" else set[str]()
    unseen = next((folder for folder in sorted(folders) if not Path(folder).is_dir()), None)
    if unseen is not None:
        return LookOutcome(unseen=unseen)
    own = Home(Path(job.home)) if Path(job.home).is_dir() else home()
    windows = [
        Window(
            Path(window.path),
            window.content,
            list(window.rows),
            [row_key(row) for row in window.rows],
            list(window.problems),
            window.unusable,
        )
        for window in job.windows
    ]
    seen = _seen_here(job, ladder, own)
    return LookOutcome(entries=tuple(judge_windows(own, seen, ladder.monitoring, job.history, windows)))


def _seen_here(job: LookJob, ladder: Ladder, own: Home) -> Watched:
    """The version with its folders, and those of its data and its root teacher, on this machine."""
    version = VERSION.validate_python(job.version)
    context = Context(run=version.run, ladder=version.name, home=str(own.root), base=str(own.root))
    student = next(model for model in job.record.models if model.fingerprint == version.fingerprint)
    folder = Path(model_here(student.model_copy(update={"folder": str(version.folder)}), context).folder)
    teacher = job.record.teacher
    if job.asks_teacher and teacher is not None:
        teacher = model_here(teacher, context)
    record = job.record.model_copy(update={"teacher": teacher})
    return Watched(replace(version, folder=folder), record, ladder, data_here(job.data, context))


def answer(line: str) -> str:
    """The outcome of a job, or its error, both as JSON."""
    try:
        outcome = judge_job(LookJob.model_validate_json(line))
    except LadderError as error:
        outcome = LookOutcome(failed=str(error))
    return outcome.model_dump_json()


if __name__ == "__main__":
    answer_lines(answer)
