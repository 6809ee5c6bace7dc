"""The resolved settings that a run keeps, and how they differ from another run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.records.run import RunRecord
from tasks.store.fingerprint import changes


def settings_that_differ(a: RunRecord, b: RunRecord) -> list[str]:
    """The resolved settings that differ, one line each, stages by name; the identities of the models, where a run kept no settings."""
    old, new = kept_settings(a), kept_settings(b)
    if old is None or new is None:
        old, new = ({model.name: model.identity for model in run.models} for run in (a, b))
    return changes(old, new)


def kept_settings(record: RunRecord) -> dict[str, Any] | None:
    """The settings in a run's folder, its stages by name; None where it kept none."""
    try:
        text = (Path(record.folder) / "ladder.yaml").read_text(encoding="utf-8")
        plain = yaml.safe_load(text)
        # A run of 0.3.0 does not say that it was recorded in MLflow.
        return {"tracking": "mlflow", **plain, "stages": {stage["name"]: stage for stage in plain["stages"]}}
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return None
