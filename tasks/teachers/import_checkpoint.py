"""Import a checkpoint as root teacher: check it, copy it into the store."""

from __future__ import annotations

import json
from pathlib import Path

from conf.schema.teacher import CheckpointTeacher
from models.alignment.load import joint_hash, write_own
from models.architectures.checkpoint import check_finite, load_model
from models.architectures.shapes import Size, count
from models.base.files import read_json
from tasks.records.run import COMPARED, TEACHER, StageRecord, stage_record
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.teachers.fit import check_checkpoint, check_corpus, check_forward, check_students, missing_pad
from tasks.teachers.other_tokenizer import other_tokenizer
from tasks.teachers.teacher_source import checkpoint_identity, copy_checkpoint, resolve_checkpoint
from tasks.training.work import read_record, record_of, require_started


def import_checkpoint(teacher: CheckpointTeacher, inputs: StageInputs) -> StageRecord:
    """Copy a checkpoint into the store after it proved that it loads and fits the data.

    Raises:
        UserError: It is missing, damaged, of another workload, or of another vocabulary or number of classes than the data.
    """
    ladder, data, context = inputs.ladder, inputs.data, inputs.context
    source, store = resolve_checkpoint(teacher, context), store_of(context)
    model = check_checkpoint(source, ladder)
    own = other_tokenizer(source, ladder, data.corpus())
    if own is None:
        check_corpus(source, model, teacher, data.corpus())
    else:
        log.info("teacher: %s", COMPARED)
    pad = missing_pad(model, data.corpus())
    identity = checkpoint_identity(source, ladder.workload)
    if own is not None:
        identity = {**identity, "tokenizer": own}
    entry = Entry("teacher", TEACHER, identity if pad is None else {**identity, "pad": pad}, stage_record)

    def compute() -> Write:
        require_started(context, TEACHER, "Run without --start-at.")
        log.info("teacher: importing %s", source)
        check_finite(source)
        loaded = load_model(source, ladder.workload)
        check_forward(source, loaded, data.corpus())
        check_students(loaded, ladder, data.corpus())
        size = count(loaded, ladder.data.sequence_length)
        return lambda folder: _write(folder, source, entry.fingerprint, size, pad, ladder.workload, own)

    found = find_or_compute(store, entry, context.made, compute, fresh=context.is_fresh(TEACHER))
    if found.reused:
        log.info("teacher: found in the store (%s), reused", entry.fingerprint[:12])
    return read_record(found)


def _write(folder: Path, source: Path, fingerprint: str, size: Size, pad: int | None, workload: str, own: str | None) -> None:
    copy_checkpoint(source, folder, workload)
    if own is not None:
        write_own(folder, own)
    if pad is not None:
        config = read_json(folder / "config.json")
        (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": pad}, indent=2), encoding="utf-8")
    record = record_of(folder, TEACHER, fingerprint, size)
    if own is not None:
        record = record.model_copy(update={"weights_sha256": joint_hash(record.weights_sha256, own)})
    (folder / "record.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
