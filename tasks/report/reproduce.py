"""Shell commands that reproduce a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from conf.loading.load import shipped
from tasks.records.run import RunRecord


def reproduction(record: RunRecord) -> list[str]:
    """Commands for a shell in a clone of Ladder: the version, then the run; the weights are bit-equal on the same kind of processor."""
    commit = record.environment.get("git_commit")
    checkout = [f"git checkout {commit}" + ("  # and the changes that were not committed" if record.environment.get("git_dirty") else "")]
    return [*(checkout if commit else []), run_command(record)]


def run_command(record: RunRecord) -> str:
    """The command of the run; one stage from named teachers needs their home, everything else needs nothing."""
    if record.only:
        return shlex.join(["ladder", "rerun", record.run])
    command = {"proof": "prove", "search": "search"}.get(record.kind, "run")
    return shlex.join(["ladder", command, *arguments_of(record)])


def prove_command(record: RunRecord) -> str:
    """The command that compares this ladder with its control arms."""
    return shlex.join(["ladder", "prove", *arguments_of(record)])


def arguments_of(record: RunRecord) -> list[str]:
    """The ladder and its settings as arguments of a command: its name or file, and `key=value`."""
    if record.whole or (record.source not in shipped() and not Path(record.source).is_file()):
        return [str(Path(record.folder) / "ladder.yaml")]
    return [record.source, *record.overrides]
