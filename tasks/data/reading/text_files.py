"""Text files: their lines and encoding, and the errors about them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr

from conf.errors import UserError

CHUNK = 1 << 20  # characters that are decoded at once
LONGEST = 1 << 28  # bytes of a line, a field or an object: more of them is a file without ends of lines


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


def lines_of(stream: IO[AnyStr], name: str) -> Iterator[AnyStr]:
    """The lines of a stream, none of which fills the memory."""
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise unreadable(f"{name}:{number}", f"a line of more than {LONGEST >> 20} MiB")
        yield line


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


def unreadable(origin: str, reason: str) -> UserError:
    """The error about a file, or a place in it, that cannot be read."""
    allowed = "readable UTF-8 text, JSON lines, a JSON array of objects, CSV, TSV or Parquet"
    return UserError.about("data.paths", origin, allowed, f"Mend or leave out the file: {reason}.")
