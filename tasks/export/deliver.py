"""Copy an export from the store to a user's folder, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from conf.atomic import fsync
from conf.errors import StoreError, UserError, reason_of
from models.base.files import file_sha256, fsync_tree
from tasks.records.export import CHECK, ExportRecord
from tasks.store.store import MANIFEST

KEY = "--to"
FREE = "a folder that does not exist yet, or is empty"
LINKED = 2**20  # bytes from which on a file is linked, and not copied: nobody edits weights by hand
REMEDY = "Choose another, or move away what is there."


def check_free(folder: Path, fingerprint: str, key: str = KEY) -> None:
    """Refuse a place that holds something else than this export, before any work.

    Raises:
        UserError: It is a file, or a folder with other things in it.
    """
    if not os.path.lexists(folder):
        if _parent(folder).is_dir():
            return
        raise UserError.about(key, str(folder), "a folder in a folder", "A part of the path is a file: choose another.")
    if not folder.is_dir():
        raise UserError.about(key, str(folder), FREE, f"This is a file. {REMEDY}")
    names = sorted(path.name for path in folder.iterdir())
    if names and _fingerprint(folder) != fingerprint:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise UserError.about(key, str(folder), FREE, f"It holds {', '.join(names[:4])}{more}. {REMEDY}")


def _parent(folder: Path) -> Path:
    """The nearest folder above that exists."""
    return next(parent for parent in folder.absolute().parents if os.path.lexists(parent))


def _fingerprint(folder: Path) -> str | None:
    try:
        return ExportRecord.model_validate_json((folder / CHECK).read_bytes()).fingerprint
    except (OSError, ValueError):
        return None


def deliver(record: ExportRecord, folder: Path, key: str = KEY) -> bool:
    """Copy an export, its large files as hard links where the file system has them; False where it is there already.

    Args:
        record: An export in the store.
        folder: Missing or empty, or the same export.
        key: Option to blame.

    Raises:
        UserError: The folder holds something else, also if somebody put it there meanwhile.
        StoreError: The disk is full or cannot be written.
    """
    check_free(folder, record.fingerprint, key)
    source = Path(record.folder)
    if folder.is_dir() and any(folder.iterdir()):
        _require_same(source, folder, key)
        return False
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(folder)
        temporary.mkdir()
        for path in sorted(path for path in source.iterdir() if path.name != MANIFEST):
            _place(path, temporary / path.name)
        fsync_tree(temporary)
        temporary.rename(folder)  # over an empty folder, or none; one that is not empty stays
        fsync(folder.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise UserError.about(key, str(folder), FREE, f"Something was put there meanwhile. {REMEDY}") from error
        remedy = "Free some space or choose another folder; the export itself is in the store."
        raise StoreError(f"{key}: cannot write to {folder} ({reason_of(error)}). {remedy}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _require_same(source: Path, folder: Path, key: str) -> None:
    """Refuse a copy that was changed since."""
    for path in source.iterdir():
        copy = folder / path.name
        if path.name == MANIFEST or (copy.is_file() and (copy.samefile(path) or file_sha256(copy) == file_sha256(path))):
            continue
        raise UserError.about(key, str(folder), FREE, f"It holds this export, but {path.name} was changed or removed. {REMEDY}")


def _place(source: Path, target: Path) -> None:
    if source.stat().st_size >= LINKED:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
        else:
            return
    shutil.copyfile(source, target)


def _remove_left(folder: Path) -> None:
    """Remove what a process that died had begun to copy."""
    for left in folder.parent.glob(f".{folder.name}.*.writing"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            shutil.rmtree(left, ignore_errors=True)
