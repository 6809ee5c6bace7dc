"""The home: the folder of all state, `LADDER_HOME` or `./.ladder`.

Its layout is contract 4 of docs/explanation/architecture.md.
"""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from conf.errors import StoreError

DISK_MESSAGES = ("No space left on device", "database or disk is full", "disk I/O error")
LEAST_FREE = 16 * 2**20  # bytes; the databases of Prefect and MLflow alone take a few MiB


@dataclass(frozen=True)
class Home:
    """The folder of everything that Ladder writes."""

    root: Path

    @property
    def store(self) -> Path:
        """Content-addressed results: data, teachers, stages, evaluations."""
        return self.root / "store"

    @property
    def runs(self) -> Path:
        """One folder per ladder run: its record, its resolved settings, its report."""
        return self.root / "runs"

    @property
    def figures(self) -> Path:
        """Drawings of reports that were made before; may be deleted at any time."""
        return self.root / "figures"

    @property
    def mlflow(self) -> Path:
        """MLflow's SQLite file and artifacts, used when `MLFLOW_TRACKING_URI` is not set."""
        return self.root / "mlflow"

    @property
    def prefect(self) -> Path:
        """Prefect's home, used when `PREFECT_API_URL` is not set."""
        return self.root / "prefect"

    @property
    def windows(self) -> Path:
        """Samples of served requests, `windows/<model>/<hour>.jsonl`; a file that is still written ends in `.part`."""
        return self.root / "windows"

    @property
    def promotions(self) -> Path:
        """The history of champions, `promotions/<model>/<number>.json`."""
        return self.root / "promotions"

    @property
    def monitoring(self) -> Path:
        """One folder per watched model: what each window showed, and a page."""
        return self.root / "monitoring"

    @property
    def remote(self) -> Path:
        """Recorded contents of object stores, `remote/<address>/`, and `records` that plans have fetched; may be deleted at any time."""
        return self.root / "remote"

    @property
    def locks(self) -> Path:
        """Lock files; the kernel releases a lock when its holder dies."""
        return self.root / "locks"


def sqlite_address(file: Path, driver: str = "sqlite") -> str:
    """The address of an SQLite file, by SQLite's own quoting where its path holds a letter with a meaning in addresses.

    https://www.sqlite.org/uri.html
    """
    path = str(file)
    return f"{driver}:///file:{quote(path)}?uri=true" if set(path) & set("?#%") else f"{driver}:///{path}"


def home() -> Home:
    """Return the home named by `LADDER_HOME`, or `./.ladder`."""
    return Home(Path(os.environ.get("LADDER_HOME") or ".ladder").absolute())


def protect(home: Home) -> None:
    """Close the home to other users, one made by an earlier version too, and make private what this process writes from now on.

    With `LADDER_GROUP_READS=1` the group may read, but for the password of the servers.
    """
    shared = os.environ.get("LADDER_GROUP_READS") == "1"
    os.umask(0o027 if shared else 0o077)
    wanted = 0o750 if shared else 0o700
    try:
        found = home.root.stat()
    except OSError:  # not there yet
        return
    require_readable(home)
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and (mode & 0o077) != (wanted & 0o077):
        home.root.chmod((mode & ~0o077) | (wanted & 0o077))


@contextmanager
def disk_errors(home: Home) -> Iterator[None]:
    """Turn a full or read-only disk into one clear message.

    Raises:
        StoreError: Naming the folder, the free space and the remedy.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR):
            raise
        closed = error.errno in (errno.EACCES, errno.EROFS)
        raise _closed_error(home, str(error)) if closed else _disk_error(home, str(error)) from error
    except StoreError:
        raise
    except Exception as error:
        # safetensors and SQLite report a full disk as errors of their own, with these messages inside.
        lines = [line for line in str(error).splitlines() if any(message in line for message in DISK_MESSAGES)]
        if not lines:
            raise
        raise _disk_error(home, lines[0]) from error


def require_readable(home: Home) -> None:
    """Refuse the home of another user, which would look empty.

    Raises:
        StoreError: Naming the folder, its owner and the remedy.
    """
    if not os.access(home.root, os.R_OK | os.X_OK) and home.root.exists():
        raise _closed_error(home, "Permission denied")


def require_space(home: Home) -> None:
    """Refuse to begin on a disk where not even the record of a run fits.

    Raises:
        StoreError: Naming the folder, the free space and the remedy.
    """
    if free_bytes(home) < LEAST_FREE:
        raise _disk_error(home, f"a run needs {LEAST_FREE // 2**20} MiB to begin")


def full_disk(home: Home) -> StoreError | None:
    """The error for a disk on which nothing can be written; None while there is space."""
    with suppress(OSError):  # a disk that is gone is another error's matter
        if free_bytes(home) < LEAST_FREE:
            return _disk_error(home, "No space left on device")
    return None


def free_bytes(home: Home) -> int:
    """Bytes that are free on the disk of a home, which need not exist yet."""
    existing = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _disk_error(home: Home, reason: str) -> StoreError:
    return StoreError(
        f"LADDER_HOME: cannot write to {home.root} ({reason}); {free_bytes(home) / 2**20:.0f} MiB are free there. "
        "Free some space or set LADDER_HOME to a folder on a larger disk; finished models stay in the store."
    )


def _closed_error(home: Home, reason: str) -> StoreError:
    try:
        owner = home.root.owner()
    except (OSError, KeyError):  # not there; or a number without a name
        owner = "another user"
    return StoreError(
        f"LADDER_HOME: {home.root} of {owner} is closed to {_user()} ({reason}). Set LADDER_HOME to a folder of your own; "
        "its owner may let the group read it with LADDER_GROUP_READS=1."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"user {os.geteuid()}"
