"""Window files: found, read once they are closed, and mapped to rows.

Everything that is wrong with a file or a row becomes a sentence; nothing here ends the monitoring.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from conf.errors import UserError, reason_of
from conf.loading.introspect import suggest
from conf.loading.path_policy import check_read
from conf.schema.shipping.monitoring import WindowColumns
from tasks.records.window import WindowRow

SUFFIXES = (".jsonl", ".ndjson", ".parquet")
UNFINISHED = (".part", ".tmp", ".writing")
KEY_BYTES = 8  # of a row's id
SHOWN = 8  # columns in a sentence


@dataclass
class Window:
    """A window file that was read.

    Attributes:
        path: The file.
        content: SHA-256 of its bytes.
        rows: Its valid rows, by time.
        keys: Id of each row, a hash of its request id or else of its time and input.
        problems: Sentences about rows and columns that could not be used.
        unusable: Why none of it can be used; None: it can.
    """

    path: Path
    content: str
    rows: list[WindowRow] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unusable: str | None = None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.name.removesuffix(self.path.suffix)

    @property
    def began(self) -> str | None:
        """Time of the first request."""
        return self.rows[0].time if self.rows else None

    @property
    def ended(self) -> str | None:
        """Time of the last request."""
        return self.rows[-1].time if self.rows else None


def list_windows(pattern: str, key: str = "--windows") -> list[Path]:
    """Window files that a folder holds, or that match a pattern, by name; files that are still written are left out.

    Raises:
        UserError: There is no such folder and nothing matches, or it may not be read.
    """
    wanted = os.path.abspath(os.path.expanduser(pattern))
    if os.path.isdir(wanted):
        found = [os.path.join(wanted, name) for name in os.listdir(wanted)]
    else:
        found = [wanted] if os.path.isfile(wanted) else glob.glob(wanted, recursive=True)
        if not found and (not glob.has_magic(pattern) or not os.path.isdir(os.path.dirname(wanted))):
            raise UserError.about(key, pattern, "a folder of window files, or a pattern that matches some", "There is no such place.")
    for path in found:
        check_read(Path(path), key)
    files = [Path(path) for path in found if os.path.isfile(path)]
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def read_window(path: Path, columns: WindowColumns) -> Window | None:
    """Read a window; None where the file changed while it was read: whoever writes it is not done.

    Args:
        path: The file.
        columns: Names of its columns.
    """
    try:
        before = path.stat()
        content = path.read_bytes()
        after = path.stat()
    except OSError as error:
        return Window(path, "", unusable=f"It cannot be opened: {reason_of(error)}.")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        return None
    window = Window(path, hashlib.sha256(content).hexdigest())
    if not content.strip():
        window.unusable = "It is empty."
        return window
    try:
        found = list(_parquet(content) if path.suffix.lower() == ".parquet" else _lines(content, window))
    except Exception as error:  # noqa: BLE001  pyarrow documents few of the errors that damaged files raise
        window.unusable = f"It cannot be read: {reason_of(error)}."
        return window
    if not found:
        window.unusable = window.unusable or "It holds no row."
        return window
    _map(window, found, columns, datetime.fromtimestamp(after.st_mtime, UTC).isoformat(timespec="seconds"))
    return window


def _lines(content: bytes, window: Window) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Objects of JSON lines; broken lines are counted."""
    broken: list[str] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError):
            broken.append(f"line {number}")
            continue
        yield f"line {number}", row
    if broken:
        window.problems.append(f"{_count(len(broken), 'line')} no JSON object, the first {broken[0]}; left out.")


def _parquet(content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(pa.BufferReader(content))
    yield from ((f"row {number}", row) for number, row in enumerate(table.to_pylist(), 1))


def _map(window: Window, found: list[tuple[str, Mapping[str, Any]]], columns: WindowColumns, written: str) -> None:
    """Fill the rows of a window."""
    roles = columns.model_dump()
    present = {name for _, row in found for name in row}
    if columns.input not in present:
        shown = ", ".join(sorted(present)[:SHOWN])
        window.unusable = (
            f"It has no column {columns.input!r} of inputs but {shown}. {suggest(columns.input, present)}"
            "Set monitoring.columns.input to the right one."
        )
        return
    unknown = sorted(present - set(roles.values()) - set(WindowRow.model_fields))
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        window.problems.append(f"Unknown columns {', '.join(unknown[:SHOWN])}{more} are not read.")
    broken: list[str] = []
    rows: list[tuple[WindowRow, bytes]] = []
    plain = 0
    for origin, row in found:
        given = {role: row[name] for role, name in roles.items() if row.get(name) is not None}
        try:
            if given.get("input") is None or given["input"] == "":
                raise ValueError("no input")
            time, zoned = _moment(given.get("time"), written)
            plain += not zoned
            texts = {role: str(given[role]) for role in ("prediction", "model", "request", "slice") if role in given}
            label = _label(given.get("label"))
            made = WindowRow.model_validate({"time": time, "input": given["input"], "label": label, **texts})
        except (ValidationError, ValueError, TypeError, OverflowError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else reason_of(error)
            broken.append(f"{origin}: {why}")
            continue
        rows.append((made, row_key(made)))
    if broken:
        window.problems.append(f"{_count(len(broken), 'row')} broken, the first {broken[0]}; left out.")
    if plain:
        window.problems.append(f"{_count(plain, 'time')} without offset, taken as UTC.")
    kept: dict[bytes, WindowRow] = {}
    for made, key in rows:
        before = kept.get(key)
        if before is None or (before.label is None and made.label is not None):
            kept[key] = made
    if len(kept) < len(rows):
        window.problems.append(f"{_count(len(rows) - len(kept), 'row')} in it twice; each is counted once.")
    ordered = sorted(kept.items(), key=lambda item: datetime.fromisoformat(item[1].time))
    window.keys, window.rows = [key for key, _ in ordered], [made for _, made in ordered]
    if not window.rows:
        window.unusable = "It holds no usable row."


def row_key(row: WindowRow) -> bytes:
    """Id of a row: a hash of its request id, else of its time and input."""
    what = row.request if row.request is not None else json.dumps([row.time, row.input], sort_keys=True, default=repr)
    return hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def pack_keys(keys: list[bytes]) -> str:
    """Ids of rows as one text."""
    return base64.b64encode(b"".join(keys)).decode()


def unpack_keys(text: str) -> set[bytes]:
    """The ids in a text of `pack_keys`."""
    joined = base64.b64decode(text)
    return {joined[place : place + KEY_BYTES] for place in range(0, len(joined), KEY_BYTES)}


def _moment(value: Any, written: str) -> tuple[str, bool]:
    """ISO 8601 with an offset, and whether the value had one; the file's time where there is none."""
    if value is None:
        return written, True
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(float(value), UTC).isoformat(), True
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat(), found.tzinfo is not None


def _label(value: Any) -> str | int | None:
    """A label; None for an empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value).strip()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s are' if number != 1 else ' is'}"
