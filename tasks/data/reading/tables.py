"""Rows of tables: JSON lines, JSON arrays, CSV, TSV and Parquet."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, AnyStr, BinaryIO

from conf.errors import UserError, reason_of
from conf.loading.introspect import suggest

TABLES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
CHUNK = 1 << 20  # characters of a JSON array that are decoded at once
SHOWN_COLUMNS, SHOWN_CHARACTERS = 30, 40  # of a header, in messages
LONGEST = 1 << 28  # bytes of a line, a field or an object: more of them is a file without ends of lines
SPACE = " \t\n\r"
BEYOND_PYTHON = (ValueError, RecursionError)  # of JSON that Python cannot hold: numbers of thousands of digits, deep nesting

Row = Mapping[str, Any]


class NoLabelColumn(UserError):
    """A table has no column of labels, nor one of a similar name; a table beside it may have it."""


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
                objects = _json_lines(name, path) if suffix != ".json" or _holds_lines(path) else _json_array(name, path)
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


def _json_lines(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(_lines(stream, name), 1):
            if not line.strip():
                continue
            origin, text = f"{name}:{number}", line.decode("utf-8-sig")
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise unreadable(origin, f"not JSON: {error.msg} at column {error.colno}") from error
            except BEYOND_PYTHON as error:
                raise unreadable(origin, _beyond(error)) from error
            if not isinstance(row, dict):
                raise unreadable(origin, "a line must be one JSON object")
            yield origin, row


def _lines(stream: IO[AnyStr], name: str) -> Iterator[AnyStr]:
    """The lines of a stream, none of which fills the memory."""
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise unreadable(f"{name}:{number}", f"a line of more than {LONGEST >> 20} MiB")
        yield line


def _holds_lines(path: Path) -> bool:
    """Whether a `.json` file holds JSON lines: an object that ends with the first line, and another line."""
    with path.open("rb") as stream:
        lines = (line.decode("utf-8-sig").strip() for line in iter(lambda: stream.readline(LONGEST + 1), b""))
        if stream.read(64).lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:1] == b"[":  # an array, perhaps all of it in one line
            return False
        stream.seek(0)
        first = next(filter(None, lines), "")
        if not first.startswith("{") or not next(filter(None, lines), ""):
            return False
    try:
        return isinstance(json.loads(first), dict)
    except BEYOND_PYTHON as error:  # such a line is one, and is refused when it is read
        return not isinstance(error, json.JSONDecodeError)


def _json_array(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of an array, decoded one after another while the file is read."""
    with path.open("rb") as stream:
        text = _Text(stream)
        if (start := text.peek()) != "[":
            raise unreadable(name, _no_array(path) if start == "{" else "it holds no JSON array of objects")
        text.position += 1
        number = 0
        while (mark := text.peek()) != "]":
            if number:
                if mark != ",":
                    raise unreadable(f"{name}:{text.line()}", f"not JSON: a comma or the end of the array is missing after item {number}")
                text.position += 1
            number += 1
            try:
                found = text.decode()
            except json.JSONDecodeError as error:
                raise unreadable(f"{name}:{text.line()}", f"not JSON: {error.msg} in item {number}") from error
            except BEYOND_PYTHON as error:
                raise unreadable(f"{name}:{text.line()}", f"{_beyond(error)} in item {number}") from error
            if not isinstance(found, dict):
                raise unreadable(f"{name}:{text.line()}", f"item {number} of the array is no object")
            yield f"{name}, item {number}", found
        text.position += 1
        if text.peek():
            raise unreadable(f"{name}:{text.line()}", "there is text after the end of the array")


def _no_array(path: Path) -> str:
    """Why a `.json` file that begins with an object is no table."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} in line {error.lineno}"
    except BEYOND_PYTHON as error:
        return _beyond(error)
    lists = [key for key, value in found.items() if isinstance(value, list)] if isinstance(found, dict) else []
    inside = f"; the list under {lists[0]!r} alone may be meant" if lists else ""
    return f"it holds one JSON object where a table is an array of objects, one a row{inside}"


def _beyond(error: Exception) -> str:
    return "brackets are nested too deep" if isinstance(error, RecursionError) else "a number has too many digits"


class _Text:
    """The text of a stream, decoded a chunk at a time; earlier chunks are not kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self.position = 0
        self._lines = 1  # the line that the buffer begins in
        self._buffer = ""
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()

    def line(self) -> int:
        """Number of the line at the position."""
        return self._lines + self._buffer.count("\n", 0, self.position)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.position < len(self._buffer):
                if (mark := self._buffer[self.position]) not in SPACE:
                    return mark
                self.position += 1
            if not self._more(CHUNK):
                return ""

    def decode(self) -> Any:
        """The JSON value that begins at the next character that is no space.

        Raises:
            JSONDecodeError: There is none, or it is damaged.
        """
        self.peek()
        self._forget()
        size = CHUNK
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self.position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._buffer) - 16
                if cut and len(self._buffer) - self.position > LONGEST:
                    raise json.JSONDecodeError(f"a value of more than {LONGEST >> 20} MiB", "", 0) from None
                if not (cut and self._more(size)):
                    self.position = error.pos
                    raise
                size *= 2
            else:
                self.position = end
                return value

    def _forget(self) -> None:
        if self.position > CHUNK // 2:
            self._lines = self.line()
            self._buffer = self._buffer[self.position :]
            self.position = 0

    def _more(self, size: int) -> bool:
        data = self._stream.read(size)
        self._buffer += self._decoder.decode(data, final=not data)
        return bool(data)


def _csv_rows(name: str, path: Path, wanted: Mapping[str, str], separator: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(LONGEST)  # the module's own limit, 128 KiB, is less than a long document
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(_lines(stream, name), delimiter=separator, strict=True)
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


def read_text(name: str, path: Path) -> str:
    """The text of a file without its byte order mark.

    Raises:
        UserError: It is not UTF-8.
        OSError: It cannot be opened.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(name, path) from error


def check_beginning(name: str, path: Path) -> None:
    """Refuse a file of text whose first bytes are not UTF-8, such as a compressed one.

    Raises:
        UserError: It is not.
    """
    with path.open("rb") as stream:
        try:
            codecs.getincrementaldecoder("utf-8-sig")().decode(stream.read(CHUNK))
        except UnicodeDecodeError as error:
            raise not_utf8(name, path) from error


def not_utf8(name: str, path: Path) -> UserError:
    """The error about a file in another encoding, with the first line that shows it."""
    with path.open("rb") as stream:
        start = stream.read(2)
        if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return unreadable(f"{name}:1", "it is UTF-16, not UTF-8: iconv -f utf-16 -t utf-8 converts it")
        if start == b"\x1f\x8b":
            return unreadable(name, "it is compressed: gunzip it")
        if start == b"PK":
            return unreadable(name, "it is a zip archive or an Excel workbook: unpack it, or save it as CSV")
        stream.seek(0)
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                reason = f"byte 0x{line[error.start]:02x} at position {error.start + 1} of the line is not UTF-8"
                return unreadable(f"{name}:{number}", f"{reason}: iconv -f latin1 -t utf-8 converts Western European text")
    return unreadable(name, "it is not UTF-8")


def check_columns(available: Collection[str], wanted: Mapping[str, str], origin: str) -> None:
    """Raise a UserError for the first column of `wanted` (role to name) that `available` lacks or holds twice."""
    for role, name in wanted.items():
        key = "data.splits.column" if role == "split" else f"data.columns.{role}"
        if name not in available:
            similar = suggest(name, available)
            remedy = f"{similar}Name the column that holds the {role}."
            if role == "label":
                remedy += " Rows without label have an empty cell in it."
            error = NoLabelColumn if role == "label" and not similar else UserError
            raise error.about(key, name, f"the columns of {origin}: {_shown(available)}", remedy)
        if not isinstance(available, dict) and (times := list(available).count(name)) > 1:  # all but the last would be ignored
            remedy = f"The header of {origin} has it {times} times: rename all but one."
            raise UserError.about(key, name, "a column that occurs once", remedy)


def _shown(names: Collection[str]) -> str:
    """Names of columns; a first line of data in place of a header may be long."""
    cut = [name if len(name) <= SHOWN_CHARACTERS else f"{name[: SHOWN_CHARACTERS - 3]}..." for name in names]
    return ", ".join(cut[:SHOWN_COLUMNS]) + (f" and {len(cut) - SHOWN_COLUMNS} more" if len(cut) > SHOWN_COLUMNS else "") or "none"


def unreadable(origin: str, reason: str) -> UserError:
    """The error about a file, or a place in it, that cannot be read."""
    allowed = "readable UTF-8 text, JSON lines, a JSON array of objects, CSV, TSV or Parquet"
    return UserError.about("data.paths", origin, allowed, f"Mend or leave out the file: {reason}.")
