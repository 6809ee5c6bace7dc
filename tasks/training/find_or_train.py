"""Found, resumed or computed: the one way by which a model of the ladder comes into being, the root teacher included."""

from __future__ import annotations

import shutil
from pathlib import Path

from conf.home import disk_errors
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.run_registry import Context, store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.runtime.training_slots import training_slot
from tasks.store.cached import note_reuse
from tasks.store.fingerprint import changes, fingerprint
from tasks.store.store import Found, Store
from tasks.training.work import Work, is_fresh, read_record, require_started


def reusable(store: Store, kind: str, mark: str, context: Context, name: str) -> Found | None:
    """The finished result, unless this run was asked to compute it anew and has not done so yet."""
    found = store.find(kind, mark)
    if found and is_fresh(context, name) and found.manifest["run"] != context.run:
        return None
    return found


def find_or_train(work: Work, inputs: StageInputs) -> StageRecord:
    """Find the model in the store, or resume or compute it.

    Raises:
        UserError: It would have to be computed, but stands before `--start-at`.
        TrainingDiverged: Its loss left all bounds.
        StoreError: The disk is full.
    """
    ladder, data, context = inputs.ladder, inputs.data, inputs.context
    store, mark = store_of(context), fingerprint(work.identity)
    with store.lock(mark):
        found = reusable(store, work.kind, mark, context, work.name)
        if found:
            log.info("%s: found in the store (%s), reused", work.name, mark[:12])
            note_reuse(f"reused {mark[:12]} of {found.manifest['run']}")
            return read_record(found, reused=True)
        require_started(context, work.name, "Run without --start-at, or with the settings that they were made with.")
        from tasks.training.train_model import teach, write_model  # torch is imported where something is computed

        _say_why(store, work, mark, context)
        checkpoints = _checkpoints(store, mark, context, work.name)
        with training_slot(ladder.compute.at_once, context.run):
            taught = teach(work, ladder, data.corpus(), context, checkpoints)
        found = store.publish(
            work.kind, work.name, work.identity, mark, context.made, lambda folder: write_model(folder, work, mark, taught, data)
        )
        shutil.rmtree(checkpoints, ignore_errors=True)
        return read_record(found, reused=False, resumed_at=taught.trained.resumed_at)


def _say_why(store: Store, work: Work, mark: str, context: Context) -> None:
    resumable = store.resumable(mark)
    if resumable is not None and not is_fresh(context, work.name):
        log.info("%s: resumed from step %d (%s)", work.name, resumable, mark[:12])
        return
    known = store.latest(work.kind, work.name, context.ladder)
    differences = changes(known["identity"], work.identity) if known else []
    why = f" because {'; '.join(differences)}" if differences else ""
    log.info("%s: computed%s (%s)", work.name, why, mark[:12])


def _checkpoints(store: Store, mark: str, context: Context, name: str) -> Path:
    """Where to go on; `--fresh` drops what another run left, not what this one wrote before it was killed."""
    folder = store.checkpoints(mark)
    owner = folder / "run"
    with disk_errors(context.paths):
        if is_fresh(context, name) and not (owner.is_file() and owner.read_text() == context.run):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        owner.write_text(context.run)
    return folder
