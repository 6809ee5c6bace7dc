"""Read the measurements of a run's models from its records."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from tasks.records.bench import ModelBench, RunBench
from tasks.records.run import RunRecord

FILE = "bench.json"  # in a run's folder


def read_bench(record: RunRecord) -> RunBench | None:
    """The last measurement of `ladder bench`; None without one, or of another version."""
    try:
        return RunBench.model_validate_json((Path(record.folder) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, json.JSONDecodeError):
        return None


def model_benches(record: RunRecord) -> tuple[ModelBench, ...]:
    """The measurements of a run's models: those of `ladder bench`, or else those after each stage, as far as there are any."""
    bench = read_bench(record)
    if bench:
        return bench.models
    return tuple(model.bench for model in record.models if model.bench is not None)
