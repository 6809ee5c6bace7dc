"""Look at a SQLite file before it is opened: damaged, locked or gone.

Nothing but records is in these files; the results are in the store. So a damaged one is set aside and another begun. A locked one is
healthy, and left alone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from conf.errors import LadderError
from tasks.runtime.logs import log

LOCK_SECONDS = 20.0  # for another process to finish what it writes
BESIDE = ("", "-wal", "-shm", "-journal")


def look_at(path: Path, what: str, was_there: Callable[[], bool], patience: float | None = None) -> None:
    """Make sure that a SQLite file can be opened; log one line where it is another than before.

    Args:
        path: The file; it may be missing.
        what: Content of it, for messages.
        was_there: Whether something was recorded in it; asked where it is missing or empty.
        patience: Seconds to wait for a lock; None: LOCK_SECONDS.

    Raises:
        LadderError: Another process has locked it.
    """
    if not path.exists() or path.stat().st_size == 0:
        if was_there():
            text = "%s (%s) is %s: a new one is begun, without the runs before; records and results under LADDER_HOME are untouched"
            log.warning(text, what, path, "empty" if path.exists() else "gone")
        return
    if (reason := _damage(path, what, LOCK_SECONDS if patience is None else patience)) is None:
        return
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03d}")
    for end in BESIDE:
        if (beside := path.with_name(path.name + end)).exists():
            beside.rename(aside.with_name(aside.name + end))
    text = "%s (%s) is damaged (%s): set aside as %s, and a new one is begun; records and results under LADDER_HOME are untouched"
    log.warning(text, what, path, reason, aside.name)


def _damage(path: Path, what: str, patience: float) -> str | None:
    """Why SQLite refuses the file; None: it reads it. Its own check sees a cut file, under its lock."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=patience)) as connection:
            connection.execute("select count(*) from sqlite_master").fetchall()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            return None  # such as no permission: opening it says so
        text = f"{what} ({path}) is locked by another process for {patience:.0f} s. It is healthy: end that process, or try again later."
        raise LadderError(text) from None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None
