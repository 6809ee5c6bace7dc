"""What is known of how fast the models of a run answer. Reads records, and imports neither torch nor Prefect."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from tasks.records.bench import ModelBench, RunBench
from tasks.records.run import RunRecord

FILE = "bench.json"  # in a run's folder


def read_bench(record: RunRecord) -> RunBench | None:
    """What `ladder bench` measured last of a run; None where it has not, or in another version."""
    try:
        return RunBench.model_validate_json((Path(record.folder) / FILE).read_text())
    except (OSError, ValidationError, json.JSONDecodeError):
        return None


def model_benches(record: RunRecord) -> tuple[ModelBench, ...]:
    """The measurements of a run's models: those of `ladder bench`, or else those after each stage, as far as there are any."""
    known = read_bench(record)
    if known:
        return known.models
    return tuple(model.bench for model in record.models if model.bench is not None)
