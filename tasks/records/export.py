"""Records of exports: formats, differences from the student, speed and size."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.records.base import Record
from tasks.records.bench import Spread
from tasks.records.run import RunRecord

FILE = "exports.json"  # in a run's folder
CHECK = "export.json"  # in an export's folder


class FormatFigures(Record):
    """A model in one format, measured in a process of its own.

    Attributes:
        quality: `accuracy` of classifiers, `bits_per_byte` of language models, and `nll`, on the compared rows.
        request: Seconds of one request: a held-out example; of language models a prompt with its continuation.
        load_seconds: From the files to a model that is ready.
        peak_bytes: Most resident memory of the process, libraries included.
        library_bytes: Of it: memory resident before the model was loaded.
        bytes: Size of the files that hold weights.
    """

    quality: dict[str, float]
    request: Spread
    load_seconds: float
    peak_bytes: int
    library_bytes: int
    bytes: int


class ExportDifference(Record):
    """The difference of an export's answers from its student's, on the same rows.

    Attributes:
        examples: Held-out examples.
        rows: Rows compared: examples, or tokens of language models.
        largest: Largest difference of a log-probability, in nats.
        agreement: Share of rows with the same answer.
        kl: Mean KL divergence from the student to the export, in nats.
        quality: The student's, on the same rows.
        texts: Held-out texts whose ids the export's own tokenizer was compared on; 0: it has none of its own.
        other_ids: Of these, the texts with other ids.
    """

    examples: int
    rows: int
    largest: float
    agreement: float
    kl: float
    quality: dict[str, float] = Field(default={})
    texts: int = 0
    other_ids: int = 0


class ExportRecord(Record):
    """A student in one format: `export.json` in its folder.

    Attributes:
        name: The format with its weights: `onnx-int8`, `gguf-f16`.
        stage: Name of the student.
        weights_sha256: Hash of the student's weights.
        fingerprint: Of the export.
        folder: In the store; empty in the shipped copy, and where it was refused.
        files: Name of each file -> bytes.
        student: The student, measured in the same way.
        versions: Packages that wrote and ran it -> version.
        machine: Processor and threads of the measurement.
        made: ISO 8601, UTC.
        seconds: Of the export and its check.
        refused: Why it is outside its tolerance; None: it is inside.
        reused: Whether this run found it in the store.
    """

    name: str
    stage: str
    weights_sha256: str
    fingerprint: str
    folder: str = ""
    files: dict[str, int]
    student: FormatFigures
    export: FormatFigures
    difference: ExportDifference
    versions: dict[str, str] = Field(default={})
    machine: str
    made: str
    seconds: float
    refused: str | None = None
    reused: bool = False


class RunExports(Record):
    """All exports of a run's models: `runs/<run>/exports.json`."""

    exports: tuple[ExportRecord, ...] = ()


def read_exports(record: RunRecord) -> tuple[ExportRecord, ...]:
    """The exports of a run, in the order in which they were made; empty without any, or of another version."""
    try:
        return RunExports.model_validate_json((Path(record.folder) / FILE).read_text(encoding="utf-8")).exports
    except (OSError, ValidationError, json.JSONDecodeError):
        return ()
