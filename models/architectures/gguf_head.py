"""Read the texts `general.*` at the head of a GGUF file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf` reads the whole head, with all tokens, in seconds;
these keys come first in every file that its converters write.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

MAGIC, VERSIONS, PREFIX = b"GGUF", (2, 3), "general."
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of the fixed types
TEXT, ARRAY = 8, 9
MOST, LONGEST = 200, 1 << 16  # keys; bytes of a text, items of an array


def read_general(file: Path) -> dict[str, str]:
    """The texts whose keys begin with `general.`, without this; empty where the file is no GGUF file, or a damaged one."""
    found: dict[str, str] = {}
    try:
        with file.open("rb") as opened:
            if opened.read(4) != MAGIC or _number(opened, 4) not in VERSIONS:
                return {}
            opened.read(8)  # how many tensors
            for _ in range(min(_number(opened, 8), MOST)):
                key, kind = _text(opened), _number(opened, 4)
                if not key.startswith(PREFIX):
                    break
                value = _value(opened, kind)
                if value is not None:
                    found[key.removeprefix(PREFIX)] = value
    except (OSError, ValueError, struct.error):
        pass  # what was read before is whole
    return found


def _value(opened: BinaryIO, kind: int) -> str | None:
    """A text; any other value is passed over."""
    if kind == TEXT:
        return _text(opened)
    if kind == ARRAY:
        of, count = _number(opened, 4), _number(opened, 8)
        if count > LONGEST:
            raise ValueError("no array of the head is so long")
        for _ in range(count):
            _value(opened, of)
    elif kind in SIZES:
        opened.read(SIZES[kind])
    else:
        raise ValueError("an unknown type")
    return None


def _text(opened: BinaryIO) -> str:
    length = _number(opened, 8)
    if length > LONGEST:
        raise ValueError("no text of the head is so long")
    return opened.read(length).decode("utf-8")


def _number(opened: BinaryIO, size: int) -> int:
    return struct.unpack("<I" if size == 4 else "<Q", opened.read(size))[0]
