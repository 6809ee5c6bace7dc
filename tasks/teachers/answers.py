"""Answers from a file in place of a teacher: match them with the data by content."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.schema.teacher import AnswersTeacher
from models.base.files import file_sha256
from models.data import tokenizers
from models.data.classes import match_classes
from models.data.corpus import SPLITS, Corpus
from tasks.records.run import TEACHER, StageRecord, stage_record
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.teachers.answer_file import answers_file, columns_of, read_probabilities, unanswered, wrong_row
from tasks.teachers.image_answers import Keyed, hash_named, keyed_images
from tasks.training.work import read_record, record_of, require_started

if TYPE_CHECKING:
    from models.architectures.shapes import Size
    from models.architectures.token_answers import TokenTable

SEVERAL = {
    "texts": "texts have several answers, at least as far as sequence_length reaches",
    "images": "images have several answers, at the size that models see",
}
SAME = {"texts": "Texts must be those of the data, letter by letter", "images": "Images must be those of the data, pixel by pixel"}


def _texts(teacher: AnswersTeacher, file: Path, corpus: Corpus) -> Keyed:
    """Keys of texts: of their ids, as the ladder's tokenizer encodes and cuts them."""
    import pyarrow.parquet as pq

    from models.architectures.answers import text_key

    assert corpus.tokenizer_folder is not None
    tokenizer = tokenizers.load(corpus.tokenizer_folder)
    texts = pq.read_table(file, columns=[teacher.text]).column(teacher.text).to_pylist()
    blank = next((number for number, text in enumerate(texts) if not isinstance(text, str)), None)
    if blank is not None:
        raise wrong_row(teacher, blank + 1, repr(texts[blank]), f"text in the column {teacher.text}")

    def documents() -> Iterator[NDArray[Any]]:
        for split in map(corpus.split, SPLITS):
            for begin, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
                yield np.asarray(split.values[begin:end])

    def shown(known: Container[bytes]) -> str:
        ids = next(ids for ids in documents() if text_key(ids) not in known)
        return repr(cast(str, tokenizer.decode(ids.tolist(), skip_special_tokens=True))[:100])

    rows = (text_key(ids) for ids in tokenizers.encode_examples(tokenizer, texts, corpus.info.sequence_length))
    return Keyed(rows, map(text_key, documents()), shown)


def answers_identity(teacher: AnswersTeacher, file: Path, data: str, workload: str) -> dict[str, Any]:
    """Identity of answers on a corpus, with the image files that they name."""
    columns: list[Any] = columns_of(teacher, workload)
    if workload != "causal-lm":
        columns = [columns[0], teacher.probabilities, list(teacher.classes)]
    identity = {"kind": "answers", "file": file_sha256(file), "columns": columns, "parameters": teacher.parameters, "data": data}
    if workload == "image-classification":
        identity |= hash_named(teacher, file)
    return identity


def import_answers(teacher: AnswersTeacher, inputs: StageInputs) -> StageRecord:
    """Find or store the answers to every document of the data, as the root teacher.

    Raises:
        UserError: The file is missing or wrong, or has no answer to some documents; with their number and the first of them.
    """
    data, context = inputs.data, inputs.context
    workload = inputs.ladder.workload
    file = answers_file(teacher, context, workload)
    entry = Entry("teacher", TEACHER, answers_identity(teacher, file, data.content_hash, workload), stage_record)

    def compute() -> Write:
        require_started(context, TEACHER, "Run without --start-at.")
        log.info("teacher: importing the answers in %s", file)
        corpus = data.corpus()
        if workload == "causal-lm":
            from tasks.teachers.token_answers import match_token_answers

            table = match_token_answers(teacher, file, corpus)
            return lambda folder: _write_tokens(folder, entry.fingerprint, table, teacher, corpus)
        if workload == "image-classification":
            keyed = keyed_images(teacher, file, corpus, inputs.ladder.data)
        else:
            keyed = _texts(teacher, file, corpus)
        keys, probabilities = _matched(teacher, read_probabilities(teacher, file), keyed, corpus)
        return lambda folder: _write(folder, entry.fingerprint, keys, probabilities, teacher, corpus)

    found = find_or_compute(store_of(context), entry, context.made, compute, fresh=context.is_fresh(TEACHER))
    if found.reused:
        log.info("teacher: found in the store (%s), reused", entry.fingerprint[:12])
    return read_record(found)


def _matched(teacher: AnswersTeacher, given: NDArray[np.float64], keyed: Keyed, corpus: Corpus) -> tuple[list[bytes], NDArray[np.float64]]:
    """Keys and probabilities of the documents' answers, in the order of the data's classes; each document has one."""
    _, places = match_classes(corpus.info.label_names, teacher.classes, key="teacher.classes")
    kind = "images" if corpus.info.image_shape else "texts"
    stored: dict[bytes, int] = {}
    twice = 0
    for number, key in enumerate(keyed.rows):
        first = stored.setdefault(key, number)
        twice += not np.allclose(given[first], given[number], atol=1e-3)
    if twice:
        log.warning("teacher: %d %s; the first counts", twice, SEVERAL[kind])
    wanted: dict[bytes, None] = {}
    missing = 0
    for key in keyed.documents:
        wanted[key] = None
        missing += key not in stored
    if missing:
        total = sum(corpus.info.documents.values())
        remedy = f"The first without one is {keyed.shown(stored)}. {SAME[kind]}."
        raise unanswered(teacher, missing, total, remedy)
    keys = list(wanted)
    return keys, given[[stored[key] for key in keys]][:, places]


def _write(
    folder: Path, fingerprint: str, keys: list[bytes], probabilities: NDArray[np.float64], teacher: AnswersTeacher, corpus: Corpus
) -> None:
    from models.architectures.answers import load_answers, save_answers
    from models.architectures.shapes import count

    save_answers(folder, keys, probabilities, teacher.parameters, corpus.info.label_names)
    size: Size = count(load_answers(folder), corpus.info.sequence_length)
    (folder / "record.json").write_text(record_of(folder, TEACHER, fingerprint, size).model_dump_json(indent=1), encoding="utf-8")


def _write_tokens(folder: Path, fingerprint: str, table: TokenTable, teacher: AnswersTeacher, corpus: Corpus) -> None:
    from models.architectures.shapes import count
    from models.architectures.token_answers import load_token_answers, save_token_answers

    save_token_answers(folder, table, teacher.parameters, corpus.info.vocabulary or 0)
    size: Size = count(load_token_answers(folder), corpus.info.sequence_length)
    (folder / "record.json").write_text(record_of(folder, TEACHER, fingerprint, size).model_dump_json(indent=1), encoding="utf-8")
