"""Rows of JSON lines, and of JSON arrays too large for the memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tasks.data.reading.text_files import CHUNK, LONGEST, lines_of, unreadable

SPACE = " \t\n\r"
BEYOND_PYTHON = (ValueError, RecursionError)  # of JSON that Python cannot hold: numbers of thousands of digits, deep nesting


def json_lines(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of JSON lines, with their places.

    Raises:
        UserError: A line is damaged, or no object.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(lines_of(stream, name), 1):
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


def json_array(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
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


def holds_lines(path: Path) -> bool:
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
