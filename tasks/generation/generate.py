"""Find or make the rows that a teacher writes for training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.schema.generate import Generate
from conf.schema.ladder import Ladder
from conf.schema.tables import Columns, TransferRows
from tasks.data.reading.conversations import columns_of
from tasks.generation import prompts
from tasks.generation.answers import AnswerSet, write_all
from tasks.generation.check import check_rules
from tasks.generation.prompts import AskedPrompts
from tasks.generation.rules import function_of, parted
from tasks.generation.scores import perplexities_of
from tasks.generation.select import ChosenRow, Selected, select
from tasks.records.choice.generation import GenerationRecord
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint
from tasks.training.identity import numeric_settings

KIND = "generated"  # part of the store
ROWS, DROPPED, RECORD = "rows.jsonl", "dropped.jsonl", "record.json"
SLICE = "generated"  # of rows, where the data have a column of slices


def read_prompts(inputs: StageInputs) -> AskedPrompts:
    """All prompts of the ladder, but those that hold documents held out of its own corpus.

    Raises:
        UserError: As `tasks.generation.prompts.read_prompts`.
    """
    settings = inputs.ladder.data.generate
    assert settings is not None
    return prompts.read_prompts(settings, Path(inputs.context.base), inputs.data.corpus())


def generate_data(root: StageRecord, inputs: StageInputs, asked: AskedPrompts, student: StageRecord | None = None) -> GenerationRecord:
    """Find or write the answers to prompts, select, and store the rows.

    Args:
        root: The root teacher, which writes unless an endpoint does.
        inputs: Of all stages.
        asked: The prompts.
        student: Of the last round, whose perplexity a rule may ask for.

    Raises:
        UserError: Of prompts, rules or an endpoint that refuses.
        TransientError: The endpoint is away; what arrived is kept.
    """
    settings = inputs.ladder.data.generate
    assert settings is not None
    check_rules(settings)  # before anything is paid
    written = write_all(settings, asked.prompts, root, inputs)
    function, source = function_of(settings.selection.function)
    judge, judge_hash = perplexities_of(settings, inputs, student)
    columns = columns_of(inputs.ladder.data)
    identity = {
        "kind": KIND,
        "answers": written.fingerprint,
        "prompts": fingerprint({"prompts": [[p.text, p.values, p.reference] for p in asked.prompts]}),
        "rules": numeric_settings(settings.selection) | {"max_repeating": settings.max_repeating},
        "function": source,
        "perplexity": None if judge_hash is None else f"{judge_hash}, of what is learned",
        "columns": columns.model_dump(mode="json"),
        **_learned(settings, asked),
    }
    entry = Entry(KIND, inputs.ladder.name, identity, _read)

    def compute() -> Write:
        chosen = select(settings, asked.prompts, written.answers, function, judge)
        record = _record(settings, asked, written, chosen, root, inputs, entry.fingerprint)
        return lambda folder: _write(folder, chosen, record, columns, settings.rationale_before)

    found = find_or_compute(store_of(inputs.context), entry, inputs.context.made, compute)
    asked_hash = prompts.prompts_hash(settings.prompts, Path(inputs.context.base))
    update = {
        "source": asked_hash,
        "folder": str(found.folder),
        "reused": found.reused,
        "left_out": asked.left_out,
        "written": written.written,
    }
    record = _read(found.folder).model_copy(update={**update, "retries": written.retries})
    if record.uncounted and settings.endpoint is not None and (settings.endpoint.price_in or settings.endpoint.price_out):
        log.warning("generate: the price lacks %s answers, whose tokens the endpoint did not count", f"{record.uncounted:,}")
    log.info("generate: %s%s", record.words, " (found in the store)" if found.reused else "")
    return record


def with_rows(ladder: Ladder, records: Sequence[GenerationRecord], data: DataRecord) -> Ladder:
    """The ladder whose training documents the rows of some rounds have joined.

    Args:
        ladder: With `data.generate`.
        records: The rounds.
        data: The ladder's own corpus; a tokenizer that was trained on it stays as it is, since the root knows its ids.
    """
    settings = ladder.data.generate
    assert settings is not None
    rows = tuple(TransferRows(paths=(str(Path(record.folder) / ROWS),), weight=settings.weight) for record in records)
    joined = ladder.data.model_copy(update={"generate": None, "transfer": (*ladder.data.transfer, *rows)})
    tokenizer = ladder.tokenizer
    if tokenizer.kind == "bpe":
        tokenizer = tokenizer.model_copy(update={"kind": "folder", "path": str(data.corpus().tokenizer_folder)})
    return ladder.model_copy(update={"data": joined, "tokenizer": tokenizer})


def _learned(settings: Generate, asked: AskedPrompts) -> dict[str, Any]:
    """The part of an identity that says what of prompts and answers is learned; empty where all is."""
    made: dict[str, Any] = {}
    if settings.rationale_before is not None:
        made["rationale_before"] = settings.rationale_before
    if settings.prompts.learned is not None:
        made["learned"] = fingerprint({"prompts": [prompt.row for prompt in asked.prompts]})
    return made


def row_of(prompt: str, text: str, columns: Columns, mark: str | None = None) -> dict[str, Any]:
    """A row in the ladder's own columns: a conversation, a prompt with its completion, or one text; `mark` parts off its rationale."""
    group = {columns.slice: SLICE} if columns.slice is not None else {}
    if columns.messages is not None:
        return {columns.messages: [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}], **group}
    if columns.prompt is not None and columns.completion is not None:
        rationale, answer = parted(text, mark)
        explained = {} if columns.rationale is None else {columns.rationale: rationale}
        return {columns.prompt: prompt, columns.completion: answer, **explained, **group}
    return {columns.text: prompt + text, **group}


def _record(
    settings: Generate,
    asked: AskedPrompts,
    written: AnswerSet,
    chosen: Selected,
    root: StageRecord,
    inputs: StageInputs,
    own: str,
) -> GenerationRecord:
    answers = [answer for samples in written.answers for answer in samples]
    endpoint = settings.endpoint
    tokens, read = sum(answer.written for answer in answers), sum(answer.read for answer in answers)
    return GenerationRecord(
        teacher=f"{endpoint.model} at {endpoint.url}" if endpoint else root.name,
        fingerprint=own,
        answers_fingerprint=written.fingerprint,
        folder="",
        prompts=len(asked.prompts),
        answers=len(answers),
        kept=len(chosen.rows),
        dropped=chosen.counts,
        tokens=tokens,
        read=read,
        seconds=written.seconds,
        price=(read * endpoint.price_in + tokens * endpoint.price_out) / 1e6 if endpoint else 0.0,
        currency=inputs.ladder.economics.currency,
        uncounted=sum(not answer.read and answer.finish != "refused" for answer in answers) if endpoint else 0,
        samples=chosen.samples(),
    )


def _write(folder: Path, chosen: Selected, record: GenerationRecord, columns: Columns, mark: str | None) -> None:
    _write_lines(folder / ROWS, [row_of(row.prompt.row, row.text, columns, mark) for row in chosen.rows])
    _write_lines(folder / DROPPED, [_dropped(rule, row) for rule, rows in chosen.dropped.items() for row in rows])
    (folder / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _dropped(rule: str, row: ChosenRow) -> dict[str, Any]:
    return {"rule": rule, "prompt": row.prompt.text, "completion": row.text}


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def _read(folder: Path) -> GenerationRecord:
    return GenerationRecord.model_validate_json((folder / RECORD).read_bytes())
