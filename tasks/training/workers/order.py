"""The order of a shared training, and the files that run and workers exchange."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import socket
from pathlib import Path
from typing import NamedTuple

from conf.atomic import write_atomic
from conf.errors import LadderError, RunCancelled, UserError
from models.base.files import read_json
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.work import Work

WORK, VERSIONS, STOP, OUTCOME, MODEL = "work.pickle", "versions.json", "stop", "outcome.json", "model"
POLL_SECONDS = 0.2
SAME_VERSIONS = "Install the same versions for all workers."


class WorkerOrder(NamedTuple):
    """All that a worker needs; `owner` is the process id of the run that wrote it, on `machine`."""

    work: Work
    inputs: StageInputs
    fingerprint: str
    checkpoints: Path
    owner: int
    machine: str


def machine() -> str:
    """Scope of a process id: the host's name, and on Linux its start and the namespace of processes."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    linux = f" {boot.read_text(encoding='ascii').strip()} {Path('/proc/self/ns/pid').readlink()}" if boot.is_file() else ""
    return socket.gethostname() + linux


def versions() -> dict[str, str]:
    """Versions that must be equal in all processes of a training."""
    packages = {name: importlib.metadata.version(name) for name in ("ladder-distillation", "torch")}
    return packages | {"Python": platform.python_version()}


def in_words(found: dict[str, str]) -> str:
    """Versions, for a message."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


def check_versions(folder: Path) -> None:
    """Refuse to read the order in a folder where it was written by another version.

    Raises:
        UserError: Naming both.
    """
    wanted, here = read_json(folder / VERSIONS), versions()
    if wanted != here:
        raise UserError.about("compute.launcher", f"a worker with {in_words(here)}", in_words(wanted), SAME_VERSIONS)


def write_outcome(folder: Path, error: LadderError | None, resumed_at: int | None = None) -> None:
    """Tell the run how its training ended; None: well."""
    kind = "" if error is None else RunCancelled.__name__ if isinstance(error, RunCancelled) else type(error).__name__
    write_atomic(folder / OUTCOME, json.dumps({"kind": kind, "text": str(error or ""), "resumed_at": resumed_at}))
