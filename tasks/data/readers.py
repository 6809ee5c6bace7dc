"""Rows of JSON lines, CSV, Parquet and datasets, and the documents that they make."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.loading.load import suggest
from conf.schema.data import Columns
from conf.schema.ladder import Workload

ONE_SLICE = "all"
TABLES = {".jsonl", ".ndjson", ".csv", ".parquet"}
GREY_MODES = {"1", "L"}
COLOUR_MODES = {"RGB", "RGBA", "RGBX", "P", "PA", "LA", "CMYK", "YCbCr"}


@dataclass(frozen=True, slots=True)
class Document:
    """One document, or one example.

    Attributes:
        key: Decides the split: documents of one key never part. A relative path, or the hash of a row's content.
        slice: Group that it is reported under.
        origin: Where a person finds it, such as `reviews.csv:12`.
        text: Its text, for text workloads.
        image: (C, H, W) float32 in [0, 1], for image workloads.
        label: Its class as the source writes it; None where the source has none.
    """

    key: str
    slice: str
    origin: str
    text: str | None = None
    image: NDArray[np.float32] | None = None
    label: int | str | None = None


def read_rows(name: str, path: Path, columns: Columns, workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where it stands, and the content, of each row."""
    match path.suffix.lower():
        case ".csv":
            yield from _csv_rows(name, path, columns, workload)
        case ".parquet":
            yield from _parquet_rows(name, path, columns, workload)
        case _:
            yield from _json_rows(name, path, columns, workload)


def _json_rows(name: str, path: Path, columns: Columns, workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            origin = f"{name}:{number}"
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                raise unreadable(origin, f"not JSON: {error.msg} at column {error.colno}") from error
            except UnicodeDecodeError as error:
                raise unreadable(origin, f"byte 0x{error.object[error.start]:02x} is not UTF-8") from error
            if not isinstance(row, dict):
                raise unreadable(origin, "a line must be one JSON object")
            check_columns(row, columns, workload, origin)
            yield origin, row


def _csv_rows(name: str, path: Path, columns: Columns, workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # the module's own limit, 128 KiB, is less than a long document
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            check_columns(header, columns, workload, name)
            for row in reader:
                origin = f"{name}:{reader.line_num}"
                if row and len(row) != len(header):
                    raise unreadable(origin, f"{len(row)} fields under a header of {len(header)}")
                if row:
                    yield origin, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise unreadable(f"{name}:{reader.line_num}", str(error)) from error


def _parquet_rows(name: str, path: Path, columns: Columns, workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, columns, workload, name)
            number = 0
            for batch in file.iter_batches(columns=list(dict.fromkeys(wanted_columns(columns, workload).values()))):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}, row {number}", row
    except pa.ArrowException as error:
        raise unreadable(name, str(error)) from error


def wanted_columns(columns: Columns, workload: Workload) -> dict[str, str]:
    """Role -> name of the columns that a workload reads."""
    content = "image" if workload == "image-classification" else "text"
    wanted = {content: getattr(columns, content)}
    if workload != "causal-lm":
        wanted["label"] = columns.label
    if columns.slice is not None:
        wanted["slice"] = columns.slice
    return wanted


def check_columns(available: Collection[str], columns: Columns, workload: Workload, origin: str) -> None:
    """Raise a UserError for the first column that the workload reads and `available` lacks."""
    for role, name in wanted_columns(columns, workload).items():
        if name not in available:
            remedy = f"{suggest(name, available)}Name the column that holds the {role}."
            raise UserError.about(f"data.columns.{role}", name, f"the columns of {origin}: {', '.join(available) or 'none'}", remedy)


def row_document(row: Mapping[str, Any], columns: Columns, workload: Workload, origin: str, unlabelled: int | None = None) -> Document:
    """Make a document of a row; a label equal to `unlabelled` is none."""
    label = None if workload == "causal-lm" else _label(row[columns.label], columns, origin)
    label = None if label == unlabelled else label
    group = ONE_SLICE if columns.slice is None else str(row[columns.slice])
    if workload == "image-classification":
        image = _pixels(row[columns.image], columns, origin)
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        return Document(key, group, origin, image=image, label=label)
    text = row[columns.text]
    try:
        if not isinstance(text, str):
            raise UserError.about("data.columns.text", columns.text, "a column of text in every row", f"{origin} holds {text!r}.")
        return Document(hashlib.sha256(text.encode()).hexdigest(), group, origin, text=text, label=label)
    except UnicodeEncodeError as error:  # JSON may write half of a surrogate pair
        raise unreadable(origin, f"the text is not Unicode: {error.reason}") from error


def _label(value: Any, columns: Columns, origin: str) -> int | str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str):
        return value
    raise UserError.about("data.columns.label", columns.label, "a column of integers or strings", f"{origin} holds {value!r}.")


def _pixels(value: Any, columns: Columns, origin: str) -> NDArray[np.float32]:
    """Turn a picture into (C, H, W) float32 in [0, 1]: one channel if it is grey, else three."""
    mode = getattr(value, "mode", None)
    if mode == "I;16":
        return (np.asarray(value, dtype=np.float32) / np.float32(65535))[None]
    if mode in GREY_MODES:
        return (np.asarray(value.convert("L"), dtype=np.float32) / np.float32(255))[None]
    if mode in COLOUR_MODES:
        return np.ascontiguousarray(np.asarray(value.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / np.float32(255))
    found = f"an image of mode {mode}" if mode else type(value).__name__
    raise UserError.about("data.columns.image", columns.image, "a column of grey or colour images", f"{origin} holds {found}.")


def unreadable(origin: str, reason: str) -> UserError:
    """The error about a file, or a place in it, that cannot be read."""
    allowed = "readable UTF-8 text, JSON lines, CSV or Parquet"
    return UserError.about("data.paths", origin, allowed, f"Mend or leave out the file: {reason}.")
