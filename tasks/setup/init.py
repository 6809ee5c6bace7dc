"""`ladder init`: from a teacher and data to a ladder file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from conf.errors import UserError
from conf.loading.load import load
from tasks.runtime.runs.run_registry import Context
from tasks.setup.data_look import DataLook, look_at_data
from tasks.setup.draft import draft_ladder
from tasks.setup.guesses import Ask, Draft
from tasks.setup.teacher_look import TeacherLook, look_at_teacher
from tasks.setup.write import as_yaml, write_new


class NewLadder(NamedTuple):
    """The file that was written, and its teacher and data."""

    file: Path
    teacher: TeacherLook
    data: DataLook
    draft: Draft
    text: str


class Drafted(NamedTuple):
    """A draft that is in no file yet, and the teacher and data that it was made for."""

    teacher: TeacherLook
    data: DataLook
    draft: Draft


def init_ladder(teacher: str, data: Sequence[str], sizes: Sequence[str], out: str | None, ask: Ask, context: Context) -> NewLadder:
    """Look at teacher and data, guess a ladder, write it.

    Args:
        teacher: Path, id, URI or package of the teacher.
        data: Paths or patterns, or the name of a shipped source.
        sizes: Numbers of parameters of the stages; none: chosen.
        out: File to write; None: named after the data, in the working directory.
        ask: Answers a question that teacher and data leave open.
        context: Home, and the working directory as base.

    Raises:
        UserError: The file exists, or teacher or data are missing, unreadable or do not go together; nothing was written.
    """
    name = ladder_name(Path(out).stem if out else Path(data[0].split("*")[0]).stem or Path(context.base).name)
    file = Path(out) if out else Path(f"{name}.yaml")
    check_new(file)
    seen_teacher, seen_data = look_at_teacher(teacher, context), look_at_data(data, Path(context.base))
    drafted = Drafted(seen_teacher, seen_data, draft_ladder(name, seen_teacher, seen_data, sizes, ask))
    return write_draft(drafted, file, context, "ladder init")


def write_draft(drafted: Drafted, file: Path, context: Context, command: str) -> NewLadder:
    """Write a draft to a new file, and load it.

    Args:
        drafted: The draft; its relative paths are changed to count from the folder of the file.
        file: Relative to the working directory, or absolute.
        context: The working directory as base.
        command: That wrote it, for the comment at its beginning.

    Raises:
        UserError: The file exists, or the schema refuses the settings; nothing is left.
    """
    base = Path(context.base)
    _from_file(drafted.draft, base, (base / file).parent)
    text = as_yaml(drafted.draft, str(file), command)
    write_new(base / file, text)
    try:
        load(str(base / file))
    except UserError:
        (base / file).unlink()
        raise
    return NewLadder(file, drafted.teacher, drafted.data, drafted.draft, text)


def check_new(file: Path) -> None:
    """Refuse a file that exists.

    Raises:
        UserError: It does.
    """
    if file.exists():
        raise UserError.about("--out", str(file), "a file that does not exist yet", "Choose another, or remove it.")


def ladder_name(stem: str) -> str:
    """A name of a ladder after the beginning of a file's name."""
    return re.sub(r"[^a-z0-9-]+", "-", stem.casefold()).strip("-")[:64] or "ladder"


def _from_file(draft: Draft, base: Path, folder: Path) -> None:
    """Let relative paths count from the folder of the file, as a ladder's do."""
    if os.path.abspath(folder) == os.path.abspath(base):
        return

    def moved(path: str) -> str:
        local = not os.path.isabs(os.path.expanduser(path)) and (base / path.split("*")[0]).exists()
        return os.path.relpath(base / path, folder) if local else path

    data, teacher = draft.settings["data"], draft.settings["teacher"]
    if isinstance(data, dict):
        for key in ("paths", "name"):
            if key in data:
                data[key] = [moved(path) for path in data[key]] if key == "paths" else moved(data[key])
        if "column" not in data.get("splits", {"column": ""}):
            data["splits"] = {name: [moved(path) for path in paths] for name, paths in data["splits"].items()}
    if isinstance(teacher, dict):
        teacher["path"] = moved(teacher["path"])
    else:
        draft.settings["teacher"] = moved(teacher)
