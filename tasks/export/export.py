"""Find or make the exports of a student, each checked against it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conf.errors import ExportRefused
from conf.schema.ladder import Ladder
from conf.schema.shipping.exports import Export
from models.base.files import read_json
from models.export.formats import check_format
from models.export.gguf_tokenizer import check_gguf
from tasks.export.judge import outside
from tasks.export.write import versions_of, write_files
from tasks.records.export import CHECK, ExportRecord
from tasks.records.format import byte_size, milliseconds, percent
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.environment import processor
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context, now, store_of
from tasks.runtime.training_slots import training_slot
from tasks.store.cached import Entry, Write, find_or_compute, find_stored

KIND = "export"  # part of the store
FORMAT = 2  # of what is written and compared: another number, and all is exported anew


def export_identity(export: Export, record: StageRecord, data: DataRecord) -> dict[str, Any]:
    """Hashes of the student, the format, the packages that write it, and the rows that it is compared on."""
    return {
        "kind": KIND,
        "version": FORMAT,
        "format": export.name,
        "model": record.fingerprint,
        "weights": record.weights_sha256,
        "packages": versions_of(export.name),
        "data": data.content_hash,
        "examples": export.examples,
    }


def check_exports(exports: Sequence[Export], record: StageRecord, ladder: Ladder, key: str) -> None:
    """Refuse formats that a finished student does not have, before any work.

    Raises:
        UserError: Naming the format.
    """
    kind = read_json(Path(record.folder) / "config.json").get("model_type", "unknown")
    for export in exports:
        check_format(export.name, kind, ladder.workload, key)
        if export.format == "gguf":
            check_gguf(Path(record.folder), export.name, key)


class Exporter:
    """Exports of one student; the rows that they are compared on are written once.

    Args:
        record: The student.
        ladder: Its ladder, for workload, threads and the size of requests.
        data: Its data.
        context: The run.
    """

    def __init__(self, record: StageRecord, ladder: Ladder, data: DataRecord, context: Context) -> None:
        self.record, self.ladder, self.data, self.context = record, ladder, data, context
        self._stack, self._comparisons = ExitStack(), {}

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def export(self, export: Export) -> ExportRecord:
        """Find or make one export; the record of one that is outside its tolerance says why, and has no folder.

        Raises:
            LadderError: It does not load, or does not answer, in a process of its own.
            StoreError: The disk is full.
        """
        store = store_of(self.context)
        entry = Entry(KIND, f"{self.record.name}-{export.name}", export_identity(export, self.record, self.data), _read)
        refused: list[ExportRecord] = []

        def compute() -> Write:
            def write(folder: Path) -> None:
                made = self._make(export, entry.fingerprint, folder)
                (folder / CHECK).write_text(made.model_dump_json(indent=1), encoding="utf-8")
                if made.refused:
                    refused.append(made)
                    raise ExportRefused(f"{self.record.name} as {export.name}: {made.refused}")

            return write

        try:
            found = find_or_compute(store, entry, self.context.made, compute, fresh=self.context.is_fresh(self.record.name))
        except ExportRefused:
            if not refused:
                raise
            log.warning("%s", summary(refused[0]))
            return refused[0]
        record = _read(found.folder).model_copy(update={"folder": str(found.folder), "stage": self.record.name, "reused": found.reused})
        why = outside(export, record.difference)  # by the tolerance of today
        record = record.model_copy(update={"refused": why})
        log.info("%s", summary(record))
        return record

    def _make(self, export: Export, fingerprint: str, folder: Path) -> ExportRecord:
        from tasks.export.check import comparison  # torch is imported where something is computed

        began = time.monotonic()
        log.info("%s as %s: writing and comparing it", self.record.name, export.name)
        write_files(export.name, Path(self.record.folder), self.ladder.workload, folder, self._whole_graph(export))
        if export.examples not in self._comparisons:
            self._comparisons[export.examples] = self._stack.enter_context(comparison(self.record, self.ladder, self.data, export.examples))
        against = self._comparisons[export.examples]
        with training_slot(self.ladder.compute.at_once, self.context.run):  # a training beside it would be measured, too
            measured, difference = against.measure(export.name, folder)
        record = ExportRecord(
            name=export.name,
            stage=self.record.name,
            weights_sha256=self.record.weights_sha256,
            fingerprint=fingerprint,
            files={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
            student=against.student,
            export=measured,
            difference=difference,
            versions=versions_of(export.name),
            machine=f"{processor()}, {against.threads} thread{'s' * (against.threads != 1)}",
            made=now(),
            seconds=time.monotonic() - began,
        )
        return record.model_copy(update={"refused": outside(export, record.difference)})

    def _whole_graph(self, export: Export) -> Path | None:
        """The folder of the same student as `onnx`, if the store has it."""
        if export.name != "onnx-int8":
            return None
        whole = Export(format="onnx", examples=export.examples)
        entry = Entry(KIND, f"{self.record.name}-onnx", export_identity(whole, self.record, self.data))
        found = find_stored(store_of(self.context), KIND, entry.fingerprint, _read)
        return found.folder if found else None


def _read(folder: Path) -> ExportRecord:
    return ExportRecord.model_validate_json((folder / CHECK).read_bytes())


def summary(record: ExportRecord) -> str:
    """An export in one line."""
    difference, size = record.difference, byte_size(record.export.bytes)
    text = (
        f"{record.stage} as {record.name}: {size}, KL {difference.kl:.2g} nats, agreement {percent(difference.agreement, 2)}, "
        f"{milliseconds(record.export.request.p50)} ms a request ({milliseconds(record.student.request.p50)} in torch)"
    )
    return f"{text}; refused: {record.refused}" if record.refused else text
