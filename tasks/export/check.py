"""Measure a student and its exports in processes of their own, and judge them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conf.errors import LadderError
from conf.schema.ladder import Ladder
from models.export.compare import Job, job_text
from tasks.bench.measure import spread
from tasks.export.write import weight_bytes
from tasks.records.export import ExportDifference, FormatFigures
from tasks.records.run import DataRecord, StageRecord

ROOT = Path(__file__).parents[2]
SECONDS = 3600.0  # a process that takes longer has hung


class RowComparison:
    """The held-out rows of one student, on which its exports are compared; the student is measured when the first of them is."""

    def __init__(self, record: StageRecord, ladder: Ladder, data: DataRecord, examples: int, place: Path) -> None:
        self._record, self._ladder, self._data, self._examples = record, ladder, data, examples
        self._place, self._student = place, None

    @property
    def threads(self) -> int:
        """Processor threads of all measurements."""
        return self._ladder.bench.threads or self._ladder.compute.threads or os.cpu_count() or 1

    @property
    def student(self) -> FormatFigures:
        """The student, measured once."""
        if self._student is None:
            self._student = _measured(self._run("student", Path(self._record.folder)), Path(self._record.folder))
        return self._student

    def measure(self, name: str, folder: Path) -> tuple[FormatFigures, ExportDifference]:
        """An export in `folder`, loaded in a fresh process, and its difference from the student.

        Raises:
            LadderError: It does not load, or does not answer.
        """
        self.student  # noqa: B018  writes the rows
        found = self._run(name, folder)
        return _measured(found, folder), ExportDifference(**found["difference"])

    def _run(self, name: str, folder: Path) -> dict[str, Any]:
        bench = self._ladder.bench
        job = Job(
            name=name,
            folder=str(folder),
            workload=self._ladder.workload,
            rows=str(self._place / "rows"),
            threads=self.threads,
            examples=self._examples,
            batch_size=self._ladder.evaluation.batch_size,
            corpus=(self._data.folder, self._data.content_hash),
            prompt_tokens=bench.prompt_tokens,
            new_tokens=bench.new_tokens,
            requests=bench.repeats,
            length=self._data.corpus().info.sequence_length + 1,
        )
        file = self._place / f"{name}.json"
        file.write_text(job_text(job), encoding="utf-8")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "models.export.compare", str(file)],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=SECONDS,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(self.threads)},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LadderError(f"{self._record.name} as {name} did not answer in a process of its own within {SECONDS:.0f} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise LadderError(f"{self._record.name} as {name} did not answer in a process of its own: {last}")
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def comparison(record: StageRecord, ladder: Ladder, data: DataRecord, examples: int) -> Iterator[RowComparison]:
    """The rows of a student for as long as its exports are compared."""
    with TemporaryDirectory(prefix="ladder-export-") as place:
        yield RowComparison(record, ladder, data, examples, Path(place))


def _measured(found: dict[str, Any], folder: Path) -> FormatFigures:
    times = spread(found["requests"])
    assert times is not None
    return FormatFigures(
        quality=found["quality"],
        request=times,
        load_seconds=found["load_seconds"],
        peak_bytes=found["peak_bytes"],
        library_bytes=found["library_bytes"],
        bytes=weight_bytes(folder),
    )
