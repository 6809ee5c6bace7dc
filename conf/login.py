"""Password of a home's servers: made once, in a file for its owner alone."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from conf.errors import UserError
from conf.home import Home

USER = "ladder"
FORM = re.compile(r"[^:\s]+:\S+")


def login(home: Home) -> str:
    """`user:password` of the servers that run for this home; made when it is first asked for.

    Raises:
        UserError: The file belongs to another user, or holds something else.
        OSError: It cannot be written; `conf.home.disk_errors` makes it a message.
    """
    path = login_file(home)
    if not path.exists():
        _make(path)
    found = path.stat()
    if found.st_uid != os.geteuid():
        remedy = "Set LADDER_HOME to a folder of your own, or remove the file."
        raise UserError.about("LADDER_HOME", str(path), "a file that belongs to you", remedy)
    if stat.S_IMODE(found.st_mode) & 0o077:  # as after a copy of the home
        path.chmod(0o600)
    text = path.read_text(errors="replace", encoding="utf-8").strip()
    if not FORM.fullmatch(text):
        raise UserError.about(str(path), "(not shown)", "one line user:password", "Remove the file to have a new one made.")
    return text


def login_file(home: Home) -> Path:
    """The file that holds the password."""
    return home.root / "login"


def _make(path: Path) -> None:
    """Write a new password; of two processes that do so at once, one wins and both read the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".login.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{USER}:{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not path.exists():
                temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
