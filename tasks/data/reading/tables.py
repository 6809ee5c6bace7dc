"""Rows of tables: JSON lines, JSON arrays, CSV, TSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from conf.errors import UserError, reason_of
from tasks.data.reading.columns import check_columns
from tasks.data.reading.json_rows import holds_lines, json_array, json_lines
from tasks.data.reading.text_files import LONGEST, lines_of, not_utf8, unreadable

TABLES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

Row = Mapping[str, Any]


def read_rows(name: str, path: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    """Yield the place and the content of each row of a table.

    Memory: one row of JSON lines, CSV and TSV, one batch of Parquet; of a JSON array its largest object, and `CHUNK` characters.

    Args:
        name: The file as messages name it.
        path: The file.
        wanted: Role to name of the columns that are read.

    Raises:
        UserError: The file is empty, damaged, not UTF-8, or lacks a column.
        NoLabelColumn: It lacks that of the labels; of JSON known after the last row, and rows without it have None.
        OSError: It cannot be opened.
    """
    if path.stat().st_size == 0:
        raise unreadable(name, "it is empty")
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".csv" | ".tsv":
                yield from _csv_rows(name, path, wanted, "\t" if suffix == ".tsv" else ",")
            case ".parquet":
                yield from _parquet_rows(name, path, wanted)
            case _:
                objects = json_lines(name, path) if suffix != ".json" or holds_lines(path) else json_array(name, path)
                yield from _with_columns(objects, wanted)
    except UnicodeDecodeError as error:
        raise not_utf8(name, path) from error


def _with_columns(objects: Iterable[tuple[str, Row]], wanted: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    """Objects that have the wanted columns; one that leaves the label out has none, where another of them has one."""
    label, seen, lacking = wanted.get("label"), False, None
    others = {role: name for role, name in wanted.items() if role != "label"}
    for origin, row in objects:
        if label is None or label in row:
            seen = True
            check_columns(row, wanted, origin)
            yield origin, row
        else:
            check_columns(row, others, origin)
            lacking = lacking or (origin, row)
            yield origin, {**row, label: None}
    if lacking is not None and not seen:
        check_columns(lacking[1], wanted, lacking[0])


def _csv_rows(name: str, path: Path, wanted: Mapping[str, str], separator: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(LONGEST)  # the module's own limit, 128 KiB, is less than a long document
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(lines_of(stream, name), delimiter=separator, strict=True)
        try:
            header = next(reader, [])
            _check_header(name, header, wanted, separator)
            for row in reader:
                if row and len(row) != len(header):
                    reason = f"{len(row)} fields under a header of {len(header)}"
                    hint = f"; a field that holds a {separator!r} stands in double quotes" if len(row) > len(header) else ""
                    raise unreadable(f"{name}:{reader.line_num}", reason + hint)
                if row:
                    yield f"{name}:{reader.line_num}", dict(zip(header, row, strict=True))
        except csv.Error as error:
            hint = "double quotes enclose a whole field, and are doubled inside it" if '"' in str(error) else ""
            raise unreadable(f"{name}:{reader.line_num}", "; ".join(filter(None, (str(error), hint)))) from error


def _check_header(name: str, header: list[str], wanted: Mapping[str, str], separator: str) -> None:
    """Check the columns; where one is missing because another separator stands between them, say so."""
    others = [mark for mark in SEPARATORS if mark != separator and mark in "".join(header)]
    found = max(others, key="".join(header).count, default=None) if len(header) == 1 else None
    missing: UserError | None = None
    try:
        check_columns(header, wanted, name)
    except UserError as error:
        missing = error
        if found is None:
            raise type(error)(f"{error} The first line of the file names its columns.") from None
    if found is not None and (missing is not None or not wanted):
        suffix = ".tsv" if separator == "\t" else ".csv"
        remedy = f"the columns are separated by {SEPARATORS[found]}, and in {suffix} files by {SEPARATORS[separator]}"
        renamed = {"\t": "; rename it to .tsv", ",": "; rename it to .csv"}.get(found, "; write it again with commas")
        raise unreadable(name, remedy + renamed) from missing


def _parquet_rows(name: str, path: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, wanted, name)
            number = 0
            for batch in file.iter_batches(columns=list(dict.fromkeys(wanted.values()))):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}, row {number}", row
    except (pa.ArrowException, ValueError, OverflowError) as error:  # the last two of dates that Python cannot hold
        raise unreadable(name, reason_of(error)) from error
