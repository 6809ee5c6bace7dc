"""Find, resume or train a model of the ladder, the root teacher included."""

from __future__ import annotations

import shutil
from pathlib import Path

from conf.home import disk_errors
from tasks.records.run import StageRecord, stage_record
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.runtime.training_slots import training_slot
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import changes
from tasks.store.store import Store
from tasks.training.work import TOGETHER, Work, read_record, require_started


def find_or_train(work: Work, inputs: StageInputs) -> StageRecord:
    """Find the model in the store, or train it, from its last checkpoint on if there is one.

    Raises:
        UserError: It would have to be trained, but stands before `--start-at`.
        TrainingDiverged: Its loss left all bounds.
        StoreError: The disk is full.
    """
    context, store = inputs.context, store_of(inputs.context)
    entry, fresh = Entry(work.kind, work.name, work.identity, stage_record), inputs.context.is_fresh(work.name)
    checkpoints = store.checkpoints(entry.fingerprint)
    resumed_at: int | None = None

    def compute() -> Write:
        nonlocal resumed_at
        require_started(context, work.name, "Run without --start-at, or with the settings that they were made with.")
        from tasks.training.train_model import train_model, write_model  # torch is imported where something is computed

        _log_reason(store, entry, context)
        _claim(checkpoints, context, fresh)
        with training_slot(inputs.ladder.compute.at_once, context.run):
            if inputs.ladder.compute.launcher != "local":
                from tasks.training.workers.launch import train_by_workers

                write, resumed_at = train_by_workers(work, inputs, entry.fingerprint, checkpoints)
                return write
            if (workers := checkpoints / TOGETHER).is_dir():
                from tasks.training.workers.launch import end_earlier

                end_earlier(workers)
            finished = train_model(work, inputs.ladder, inputs.data.corpus(), context, checkpoints)
        resumed_at = finished.trained.resumed_at
        return lambda folder: write_model(folder, work, entry.fingerprint, finished, inputs.data)

    found = find_or_compute(store, entry, context.made, compute, fresh=fresh, finish=lambda: shutil.rmtree(checkpoints, ignore_errors=True))
    if found.reused:
        log.info("%s: found in the store (%s), reused", work.name, entry.fingerprint[:12])
    return read_record(found, resumed_at=resumed_at)


def _log_reason(store: Store, entry: Entry, context: Context) -> None:
    """Log whether the model is resumed or computed, and which settings have changed since it was last computed."""
    resumable = store.resumable(entry.fingerprint)
    if resumable is not None and not context.is_fresh(entry.name):
        log.info("%s: resumed from step %d (%s)", entry.name, resumable, entry.fingerprint[:12])
        return
    latest = store.latest(entry.kind, entry.name, context.ladder)
    differences = changes(latest["identity"], entry.identity) if latest else []
    why = f" because {'; '.join(differences)}" if differences else ""
    log.info("%s: computed%s (%s)", entry.name, why, entry.fingerprint[:12])


def _claim(checkpoints: Path, context: Context, fresh: bool) -> None:
    """Note the run in the folder of checkpoints; `fresh` drops those of another run, not this one's from before it was killed."""
    owner = checkpoints / "run"
    with disk_errors(context.paths):
        if fresh and not (owner.is_file() and owner.read_text(encoding="utf-8") == context.run):
            shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True, exist_ok=True)
        owner.write_text(context.run, encoding="utf-8")
