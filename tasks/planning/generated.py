"""The corpus with generated rows that the last run of the same settings prepared."""

from __future__ import annotations

from pathlib import Path

import yaml

from conf.loading.load import to_yaml
from conf.schema.ladder import Ladder
from tasks.generation.prompts import prompts_hash
from tasks.records.run import DataRecord
from tasks.runtime.runs.run_registry import Context, full_record, list_runs
from tasks.runtime.runs.run_settings import kept_settings

DECIDE = ("data", "teacher", "tokenizer", "seed", "workload")  # settings that decide the generated rows, beside the student of rounds
NOTE = "the rows of data.generate are not written yet: the stages are planned as new, on the ladder's own documents"


def generated_data(ladder: Ladder, context: Context) -> DataRecord | None:
    """The corpus that the stages of a ladder read, its generated rows among it; None where no run has made it yet."""
    settings = ladder.data.generate
    if settings is None:
        return None
    wanted, first = yaml.safe_load(to_yaml(ladder)), ladder.stages[0].name
    prompts = prompts_hash(settings.prompts, Path(context.base))
    for short in list_runs(context.paths):
        record = full_record(context.paths, short.run) if short.ladder == ladder.name else None
        if record is None or record.data is None or not record.generation or record.generation[-1].source != prompts:
            continue
        if record.generation[-1].corpus != record.data.fingerprint:
            continue  # killed before the rows had joined the data
        kept = kept_settings(record)
        if kept is None or any(kept.get(name) != wanted.get(name) for name in DECIDE):
            continue
        if settings.rounds == 1 or kept["stages"].get(first) == wanted["stages"][0]:
            return record.data
    return None
