"""Atomic replacement of a file: a reader finds the old content or the new."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file whole or not at all, so that it survives a crash of the machine.

    The content goes into a temporary file in the same folder, which is made durable and renamed.

    Args:
        path: The file, in an existing folder.
        content: Text, written as UTF-8; bytes; or a function that writes the file whose path it is given.

    Raises:
        OSError: The content could not be written; the old one is still there. `conf.home.disk_errors` makes it a message.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.writing")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Make a file or a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
