"""Find or write the answers of a teacher to prompts; nothing is written twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.home import disk_errors
from conf.schema.generate import Generate
from models.base.files import read_json
from models.base.numerics import NUMERICS
from models.data.tokenizers import tokenizer_hash
from models.generation.writers import Ask, WrittenAnswer
from tasks.generation.prompts import Prompt, seed_of
from tasks.generation.spool import FILE, AnswerSpool, read_answers, write_answers
from tasks.generation.write import asks_in_messages, write_missing
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint
from tasks.store.store import MANIFEST, Store

KIND = "answers"  # part of the store
META = "answers.json"
OWNER = "run"  # file with the name of the run that writes, whose answers `ladder clean` keeps as long as it


@dataclass(frozen=True)
class AnswerSet:
    """All answers to some prompts.

    Attributes:
        fingerprint: Of the stored result.
        answers: For each prompt, those of its samples.
        written: How many this run wrote.
        retries: Tries of this run that failed.
        seconds: That writing took, over all attempts.
    """

    fingerprint: str
    answers: list[list[WrittenAnswer]]
    written: int
    retries: int
    seconds: float


def teacher_identity(settings: Generate, root: StageRecord) -> dict[str, Any]:
    """Identity of the writer: weights and tokenizer, or address and name."""
    if settings.endpoint is not None:
        return {name: getattr(settings.endpoint, name) for name in ("url", "model", "api")}
    return {"weights": root.weights_sha256, "tokenizer": tokenizer_hash(Path(root.folder)), "numerics": NUMERICS}


def write_all(settings: Generate, prompts: Sequence[Prompt], root: StageRecord, inputs: StageInputs) -> AnswerSet:
    """Find or write the answers to prompts; those that are in the store with other prompts are copied.

    Raises:
        TransientError: The endpoint is away; what arrived is kept, and the same command goes on.
        UserError: The endpoint refuses to answer.
        RunCancelled: The run was asked to stop; finished answers are kept.
    """
    sampling = {name: getattr(settings, name) for name in ("max_tokens", "temperature", "top_p", "stop", "seed")}
    how = {
        "kind": KIND,
        "teacher": teacher_identity(settings, root),
        "chat": asks_in_messages(inputs),
        **sampling,
        "stop": list(settings.stop),
    }
    asks = [
        Ask(fingerprint({"prompt": prompt.text, "sample": sample}), prompt.text, seed_of(settings.seed, prompt.text, sample))
        for prompt in prompts
        for sample in range(settings.samples)
    ]
    identity = {**how, "asks": fingerprint({"keys": sorted(ask.key for ask in asks)})}
    store = store_of(inputs.context)
    entry = Entry(KIND, inputs.ladder.name, identity, lambda folder: (read_answers(folder / FILE), read_json(folder / META)))
    spool_folder, made = store.checkpoints(entry.fingerprint), {"written": 0, "retries": 0}

    def compute() -> Write:
        # What an endpoint has answered is paid, also for other prompts; a model of this machine writes parts anew.
        spools = (path for path in spool_folder.parent.glob(f"*/{META}") if path.parent != spool_folder and settings.endpoint)
        known = _stored(store, how, spools)
        new = [ask for ask in asks if ask.key not in known]
        with disk_errors(inputs.context.paths), AnswerSpool(spool_folder) as spool:
            before = len(spool.answers)
            (spool_folder / OWNER).write_text(inputs.context.run, encoding="utf-8")
            (spool_folder / META).write_text(json.dumps({"how": how}), encoding="utf-8")
            _log_start(settings, root, len(asks), before, len(asks) - len(new))
            if any(ask.key not in spool.answers for ask in new):
                before_this = any(answer.finish != "refused" for answer in known.values())
                made["retries"] = write_missing(settings, new, root, inputs, spool, before_this)
                made["written"] = len(spool.answers) - before
            answers, seconds = [(ask.key, known.get(ask.key) or spool.answers[ask.key]) for ask in asks], spool.seconds

        def write(folder: Path) -> None:
            write_answers(folder / FILE, answers)
            (folder / META).write_text(json.dumps({"how": how, "seconds": seconds}), encoding="utf-8")

        return write

    found = find_or_compute(store, entry, inputs.context.made, compute, finish=lambda: shutil.rmtree(spool_folder, ignore_errors=True))
    answers = read_answers(found.folder / FILE)
    listed = [answers[ask.key] for ask in asks]
    grouped = [listed[first : first + settings.samples] for first in range(0, len(listed), settings.samples)]
    return AnswerSet(entry.fingerprint, grouped, made["written"], made["retries"], float(read_json(found.folder / META)["seconds"]))


def _log_start(settings: Generate, root: StageRecord, asks: int, resumed: int, copied: int) -> None:
    who = settings.endpoint.model if settings.endpoint else root.name
    before = "".join(f", {count:,} of them {words}" for count, words in ((resumed, "in the spool"), (copied, "in the store")) if count)
    log.info("generate: %s answers of %s%s", f"{asks:,}", who, before)


def _stored(store: Store, how: dict[str, Any], spools: Iterable[Path]) -> dict[str, WrittenAnswer]:
    """Answers in the store, and in the spools of interrupted runs, of the same teacher, sampled in the same way, to whatever prompts."""
    found: dict[str, WrittenAnswer] = {}
    finished = [path.with_name(META) for path in (store.home.store / KIND).glob(f"*/{MANIFEST}")]
    for path in (*finished, *spools):
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged, of another version, or removed meanwhile
            if read_json(path)["how"] == how:
                found |= read_answers(path.with_name(FILE))
    return found
