"""Confine the paths of served runs to the configured roots.

Whoever reaches the server's form chooses these paths, and the run reads them with the rights of the serving user; so they are checked
with symbolic links and `..` resolved. The command line is not confined: its user can read the files anyway.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from conf.errors import UserError
from conf.loading.load import load, shipped
from conf.schema.data import DatasetData, FilesData
from conf.schema.generate import Generate
from conf.schema.ladder import Ladder
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher

_served: tuple[Path, ...] | None = None  # the roots of this process, which runs what a server asked for; None: it may read all files
REMEDY = "Move it there, or set LADDER_ROOTS to the folders that runs may read, where the deployments are served."
ENDPOINTS = "LADDER_ENDPOINTS"  # addresses that served runs may ask for texts, separated by commas
RECORDED = ("models:/", "runs:/")


def restrict(roots: Sequence[Path]) -> None:
    """From now on `check_read` refuses files outside these folders: this process runs what a server asked for."""
    global _served
    _served = tuple(roots)


def check_read(path: Path, key: str) -> None:
    """Refuse a file outside the roots that data name themselves, such as a table its images, when it is about to be read.

    Raises:
        UserError: This process is restricted, and the file lies elsewhere. The message does not tell whether it exists.
    """
    if _served is not None:
        _require(key, str(path), Path(os.path.abspath(path)), _served)


def check_source(source: str, roots: Sequence[Path]) -> None:
    """Refuse the path of a ladder outside the roots, before it is read; shipped ladders are always allowed.

    Args:
        source: Name of a shipped ladder, or a path.
        roots: Folders that are allowed.

    Raises:
        UserError: It leads outside. The message does not tell whether such a file exists.
    """
    if source not in shipped():
        _require("ladder", source, _full(source, Path.cwd()), roots)


def confine(source: str, ladder: Ladder, base: Path, roots: Sequence[Path]) -> None:
    """Refuse a ladder whose teacher or data lie outside the roots; hub ids and models recorded in MLflow are not paths.

    Args:
        source: Name or path of the ladder; the paths of a shipped one are allowed.
        ladder: Its settings, overrides applied.
        base: Folder of its relative paths.
        roots: Folders that are allowed.

    Raises:
        UserError: It has a rendezvous, or a path leads outside, by itself, by `..`, by a symbolic link or by a pattern.
    """
    if ladder.compute.rendezvous is not None:
        allowed = "none in a run that was started through a server, for it opens a port to other machines"
        raise UserError.about("compute.rendezvous", ladder.compute.rendezvous, allowed, "Use `ladder run`.")
    own = load(source).ladder if source in shipped() else None
    remedy = f"It is in the ladder {source}. {REMEDY}"
    if isinstance(ladder.teacher, AnswersTeacher) and not (own and own.teacher == ladder.teacher):
        _check_folder("teacher.path", ladder.teacher.path, base, roots, remedy)
        if ladder.teacher.tokenizer is not None:
            _check_folder("teacher.tokenizer", ladder.teacher.tokenizer, base, roots, remedy)
    if isinstance(ladder.teacher, CheckpointTeacher) and not (own and own.teacher == ladder.teacher):
        _check_model("teacher.path", ladder.teacher.path, base, roots, remedy)
    for index, stage in enumerate(ladder.stages):
        if stage.student.path is not None:
            _check_model(f"stages[{index}].student.path", stage.student.path, base, roots, remedy)
        if isinstance(stage.student.config, str):
            _check_folder(f"stages[{index}].student.config", stage.student.config, base, roots, remedy)
    for index, task in enumerate(ladder.evaluation.tasks):
        if "/" in task or task.endswith((".yaml", ".yml")):  # else a name that lm-eval has
            _check_folder(f"evaluation.tasks[{index}]", task, base, roots, remedy, local=True)
    if ladder.tokenizer.path is not None and not (own and own.tokenizer == ladder.tokenizer):
        _check_folder("tokenizer.path", ladder.tokenizer.path, base, roots, remedy)
    template = ladder.tokenizer.chat_template
    if template is not None and "{" not in template and not (own and own.tokenizer == ladder.tokenizer):
        _require("tokenizer.chat_template", template, _full(template, base), roots, remedy)
    if own and own.data == ladder.data:
        return
    if ladder.data.generate is not None:
        _confine_generation(ladder.data.generate, base, roots, remedy)
    for index, rows in enumerate(ladder.data.transfer):
        for place, pattern in enumerate(rows.paths):
            _check_pattern(f"data.transfer[{index}].paths[{place}]", pattern, base, roots, remedy)
    if isinstance(ladder.data, FilesData):
        for key, patterns in ladder.data.patterns().items():
            for index, pattern in enumerate(patterns):
                _check_pattern(f"{key}[{index}]", pattern, base, roots, remedy)
        for index, each in enumerate(ladder.data.sources):
            if each.dataset is not None:
                _check_folder(f"data.sources[{index}].dataset", each.dataset, base, roots, remedy)
    if isinstance(ladder.data, DatasetData):
        _check_folder("data.name", ladder.data.name, base, roots, remedy)


def _confine_generation(settings: Generate, base: Path, roots: Sequence[Path], remedy: str) -> None:
    """Files inside the roots, and an address that the server's owner has named: it gets texts, and the key."""
    for place, pattern in enumerate(settings.prompts.paths):
        _check_pattern(f"data.generate.prompts.paths[{place}]", pattern, base, roots, remedy)
    judge = settings.selection.perplexity
    if judge is not None and judge.model != "student":
        _check_model("data.generate.selection.perplexity.model", judge.model, base, roots, remedy)
    named = [url for url in os.environ.get(ENDPOINTS, "").split(",") if url]
    if settings.endpoint is not None and settings.endpoint.url not in named:
        allowed = f"an address that {ENDPOINTS} names, where the deployments are served: {', '.join(named) or 'none'}"
        raise UserError.about("data.generate.endpoint.url", settings.endpoint.url, allowed, "Set the variable there.")


def _check_model(key: str, path: str, base: Path, roots: Sequence[Path], remedy: str) -> None:
    if not path.startswith(RECORDED):
        _check_folder(key, path, base, roots, remedy)
    elif any(part == ".." for part in re.split(r"[/\\]", _unquoted(path))):
        raise UserError.about(key, path, "a recorded model's URI without `..`", "A URI names a model, not what lies beside it.")


def _unquoted(text: str) -> str:
    """`%2e` as `.`, however often it was quoted."""
    while (plain := unquote(text)) != text:
        text = plain
    return text


def _check_folder(key: str, name: str, base: Path, roots: Sequence[Path], remedy: str, *, local: bool = False) -> None:
    """A folder and every file in it; an id of the hub is one where no such folder exists, unless it can be no such id (`local`)."""
    looks_local = local or name.startswith((".", "/", "~")) or name.count("/") > 1
    for place in (_full(name, base), _full(name, Path.cwd())):  # libraries look into the working directory by themselves
        if looks_local or os.path.lexists(place):
            _require(key, name, place, roots, remedy)
            for file in place.rglob("*"):
                _require(key, name, file, roots, remedy)
        if looks_local:
            return


def confine_pattern(key: str, pattern: str, roots: Sequence[Path]) -> None:
    """Refuse files outside the roots that a served run is asked to read.

    Raises:
        UserError: A path leads outside, by itself, by `..`, by a symbolic link or by a pattern.
    """
    _check_pattern(key, pattern, Path.cwd(), roots, REMEDY)


def _check_pattern(key: str, pattern: str, base: Path, roots: Sequence[Path], remedy: str) -> None:
    """First the part before the first wildcard, so that nothing outside is even listed, then every file that it matches."""
    full = _full(pattern, base)
    fixed = list(_until_magic(full))
    if ".." in full.parts[len(fixed) :]:
        raise UserError.about(key, pattern, "a pattern without `..` after a wildcard", "Write the folder out.")
    _require(key, pattern, Path(*fixed), roots, remedy)
    for match in map(Path, glob.iglob(str(full), recursive=True)):
        _require(key, pattern, match, roots, remedy)
        if match.is_dir():  # its images are read
            for file in match.rglob("*"):
                _require(key, pattern, file, roots, remedy)
    if os.path.lexists(full):  # a file whose own name has wildcards in it
        _require(key, pattern, full, roots, remedy)


def _until_magic(path: Path) -> Iterator[str]:
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part


def _full(text: str, base: Path) -> Path:
    return Path(os.path.join(os.path.abspath(base), os.path.expanduser(text)))


def _require(key: str, given: str, path: Path, roots: Sequence[Path], remedy: str = REMEDY) -> None:
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # a NUL in it, or a name too long
        real = None
    allowed = [Path(os.path.realpath(root)) for root in roots]
    if real is None or not any(real.is_relative_to(root) for root in allowed):
        words = ", ".join(map(str, allowed)) or "none"
        raise UserError.about(key, given, f"a path inside the allowed folders: {words}", remedy)
