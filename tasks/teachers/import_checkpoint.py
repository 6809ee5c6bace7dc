"""Import a checkpoint as root teacher: check it, copy it into the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError
from conf.schema.ladder import CheckpointTeacher
from models.architectures.checkpoint import check_interface, load_model, skeleton
from models.architectures.shapes import Size, count
from models.data import tokenizers
from models.data.corpus import Corpus
from tasks.records.run import TEACHER, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.teachers.teacher_source import checkpoint_identity, copy_checkpoint, resolve_checkpoint
from tasks.training.work import read_record, record_of, require_started


def import_checkpoint(teacher: CheckpointTeacher, inputs: StageInputs) -> StageRecord:
    """Copy a checkpoint into the store after it proved that it loads and fits the data.

    Raises:
        UserError: It is missing, damaged, of another workload, or of another vocabulary or number of classes than the data.
    """
    ladder, data, context = inputs.ladder, inputs.data, inputs.context
    source, store = resolve_checkpoint(teacher, context), store_of(context)
    _check_fit(source, data.corpus())
    entry = Entry("teacher", TEACHER, checkpoint_identity(source, ladder.workload))

    def compute() -> Write:
        require_started(context, TEACHER, "Run without --start-at.")
        log.info("teacher: importing %s", source)
        size = count(load_model(source, ladder.workload), ladder.data.sequence_length)
        return lambda folder: _write(folder, source, entry.fingerprint, size)

    found = find_or_compute(store, entry, context.made, compute, fresh=context.is_fresh(TEACHER))
    if found.reused:
        log.info("teacher: found in the store (%s), reused", entry.fingerprint[:12])
    return read_record(found)


def _write(folder: Path, source: Path, fingerprint: str, size: Size) -> None:
    copy_checkpoint(source, folder)
    record = record_of(folder, TEACHER, fingerprint, size)
    (folder / "record.json").write_text(record.model_dump_json(indent=1))


def _check_fit(source: Path, corpus: Corpus) -> None:
    """A teacher must answer in the ids and classes of the data, in their order."""
    model = skeleton(source, corpus.info.workload)
    check_interface(model, corpus.interface, source)
    _same_vocabulary(source, corpus)
    labels = getattr(cast(Any, model).config, "id2label", None) or {}
    theirs, ours = [str(labels[i]) for i in sorted(labels)], list(corpus.info.label_names)
    if sorted(theirs) == sorted(ours) and theirs != ours:
        raise UserError.about(
            "teacher.path",
            f"{source} with classes in the order {', '.join(theirs)}",
            f"the order of the data: {', '.join(ours)}",
            "Label the data with whole numbers in the teacher's order.",
        )


def _same_vocabulary(teacher: Path, corpus: Corpus) -> None:
    """Ids must mean the same to teacher and students, whatever their number."""
    folder = corpus.tokenizer_folder
    if folder is None:
        return
    ours = tokenizers.load(folder).get_vocab()
    if any((teacher / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        theirs = tokenizers.load(teacher).get_vocab()
        size, same = len(theirs), theirs == ours
    else:  # nothing but the size to compare, so not even padding is allowed
        size = json.loads((teacher / "config.json").read_text())["vocab_size"]
        same = size == len(ours)
    if not same:
        raise UserError.about(
            "teacher.path",
            f"{teacher} with a vocabulary of {size} ids",
            f"the students' vocabulary, which has {len(ours)} ids here",
            "Teacher and students must share one vocabulary: set tokenizer.kind=teacher.",
        )
