"""Figures of a home that were drawn before, found again by all that they show.

Drawing takes as long as all else that a run does which reuses everything. A figure's key is made of the function, its arguments, the code
of this room and the version of matplotlib; of a run's record it leaves out only what names the run and its attempt.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from pydantic import BaseModel

from conf.atomic import write_atomic
from tasks.records.run import RunRecord

P = ParamSpec("P")
R = TypeVar("R", bound=str | bytes | None)

MOST = 200  # files; of more, the half that was not used for longest is deleted
OF_RUN = {
    *("run", "started", "finished", "seconds", "pid", "folder", "report", "environment", "attempt", "restarted", "repeats", "note", "by"),
    *("served", "waiting", "unrecorded", "mlflow_uri", "mlflow_experiment_id", "mlflow_run_id", "prefect_run_id", "prefect_url"),
    "prefect_api",
}
OF_ATTEMPT = {"reused", "reused_from", "resumed_at", "mlflow_run_id", "prefect_run_id"}  # of a model
_folder: ContextVar[Path | None] = ContextVar("figures", default=None)


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Keep the figures that are drawn within, and find those that are kept, in a folder."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def kept(draw: Callable[P, R]) -> Callable[P, R]:
    """A function that draws, made to look for what it has drawn before."""

    @functools.wraps(draw)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        folder = _folder.get()
        if folder is None:
            return draw(*args, **kwargs)
        path = folder / _key(draw.__qualname__, args, kwargs)
        found = _read(path)
        if found is not None:
            return found[0]
        drawn = draw(*args, **kwargs)
        _write(path, drawn)
        return drawn

    return call


def _key(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    text = json.dumps([_code(), name, args, sorted(kwargs.items())], default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].rglob("*.py"))]
    return hashlib.sha256("".join([*sources, version("matplotlib")]).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Replacement for a value that JSON cannot represent."""
    if isinstance(value, RunRecord):
        left_out: Any = {**dict.fromkeys(OF_RUN, True), "teacher": OF_ATTEMPT, "stages": {"__all__": OF_ATTEMPT}}
        return value.model_dump(mode="json", exclude=left_out)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, np.ndarray):
        return [value.shape, value.dtype.str, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if is_dataclass(value):
        return vars(value)
    raise TypeError(f"{type(value).__name__} cannot be a figure's argument")


def _read(path: Path) -> tuple[Any] | None:
    """Stored figure, in a tuple, for a figure may be none; None where it is not kept, or damaged."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        path.touch()
    except OSError:
        return None
    kind, content = body[:1], body[1:]
    return (content if kind == b"b" else content.decode() if kind == b"s" else None,)


def _write(path: Path, drawn: str | bytes | None) -> None:
    """Keep a figure; on a full disk the page is written without."""
    body = b"n" if drawn is None else b"b" + drawn if isinstance(drawn, bytes) else b"s" + drawn.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        files = [each for each in path.parent.iterdir() if not each.name.startswith(".")]
        if len(files) > MOST:
            for old in sorted(files, key=lambda each: each.stat().st_mtime)[: MOST // 2]:
                old.unlink(missing_ok=True)
    except OSError:
        return
