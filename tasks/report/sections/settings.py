"""Section of settings, environment and the commands that reproduce the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.format import byte_size
from tasks.records.run import RunRecord
from tasks.report.reproduce import reproduction


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The run's settings and environment."""
    return {"commands": reproduction(record), "packages": packages(record.environment), "facts": facts(record.environment)}


def packages(environment: Mapping[str, Any]) -> dict[str, str]:
    """The packages that are installed and their versions, by name."""
    return {name: str(version) for name, version in sorted(environment.get("packages", {}).items()) if version}


def facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Everything else that the environment tells, by a name for readers."""
    shown = {key.replace("_", " "): value for key, value in environment.items() if key != "packages" and value not in (None, "", [])}
    return {key: " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value) for key, value in shown.items()}


def machine(environment: Mapping[str, Any]) -> str:
    """One line on the machine: its processor, cores, memory and GPUs, as far as they were recorded."""
    parts = [str(environment.get("processor") or environment.get("machine") or "")]
    parts += [f"{environment['cores']} cores"] if environment.get("cores") else []
    parts += [byte_size(environment["memory_gib"] * 2**30)] if environment.get("memory_gib") else []
    parts += map(str, environment.get("gpus") or ())
    return ", ".join(part for part in parts if part) or "an unrecorded machine"
