"""Find or write the answers of a teacher to prompts; nothing is written twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.home import disk_errors
from conf.schema.generate import Generate
from models.base.device import resolve_device, use_threads
from models.base.files import read_json
from models.base.numerics import NUMERICS
from models.data.tokenizers import tokenizer_hash
from models.engines.base import GenerationSettings
from models.generation.writers import Ask, EndpointWriter, Writer, WrittenAnswer
from tasks.data.reading.conversations import columns_of
from tasks.generation.progress import WritingProgress
from tasks.generation.prompts import Prompt, seed_of
from tasks.generation.spool import FILE, AnswerSpool, read_answers, write_answers
from tasks.records.run import StageRecord
from tasks.runtime import cancellation
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
    how = {"kind": KIND, "teacher": teacher_identity(settings, root), "chat": _chat(inputs), **sampling, "stop": list(settings.stop)}
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
                made["retries"] = _write(settings, new, root, inputs, spool, before_this)
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


def _write(settings: Generate, asks: Sequence[Ask], root: StageRecord, inputs: StageInputs, spool: AnswerSpool, before: bool) -> int:
    """Write the answers that the spool lacks, part by part; returns how often an endpoint had to be asked again.

    `before`: the store has answers of this writer.
    """
    missing = sum(ask.key not in spool.answers for ask in asks)
    with (
        cancellation.training("data.generate"),
        writer_of(settings, root, inputs) as writer,
        WritingProgress(missing, settings.endpoint.model if settings.endpoint else root.name) as progress,
    ):
        last = time.monotonic()
        if isinstance(writer, EndpointWriter) and (before or any(each.finish != "refused" for each in spool.answers.values())):
            writer.has_answered()

        def keep() -> None:
            nonlocal last
            moment = time.monotonic()
            spool.sync(moment - last)
            last = moment

        def emit(ask: Ask, answer: WrittenAnswer) -> None:
            if ask.key not in spool.answers:
                spool.add(ask.key, answer)
                progress.add(answer)
                if settings.endpoint is not None:  # it is paid for
                    keep()

        for first in range(0, len(asks), writer.part):
            part = asks[first : first + writer.part]
            lacking = [ask for ask in part if ask.key not in spool.answers]
            if lacking:
                writer.write(part if writer.whole else lacking, emit, cancellation.requested)
                keep()
        client = getattr(writer, "client", None)
        return client.usage.retries if client is not None else 0


@contextmanager
def writer_of(settings: Generate, root: StageRecord, inputs: StageInputs) -> Iterator[Writer]:
    """The writer that the settings ask for, closed at the end."""
    options = GenerationSettings(settings.max_tokens, settings.temperature, settings.top_p, None, settings.stop)
    if settings.endpoint is not None:
        from models.generation.endpoint import EndpointClient

        writer: Writer = EndpointWriter(EndpointClient(settings.endpoint, on_retry=lambda line: log.warning("generate: %s", line)), options)
    else:
        writer = model_writer(Path(root.folder), options, settings.batch_size, inputs)
    try:
        yield writer
    finally:
        writer.close()


def model_writer(folder: Path, options: GenerationSettings, batch: int, inputs: StageInputs) -> Writer:
    """A writer of a model of this ladder, with its own tokenizer or else that of the data."""
    from models.architectures.checkpoint import load_model
    from models.data import tokenizers
    from models.engines.torch_engine import TorchLanguageModel
    from models.generation.writers import ModelWriter

    use_threads(inputs.ladder)
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    place = folder if own else inputs.data.corpus().tokenizer_folder
    assert place is not None
    model = load_model(folder, "causal-lm").to(resolve_device(inputs.ladder.compute.device)).eval().requires_grad_(False)
    engine = TorchLanguageModel(model, tokenizers.load_teacher(place), None, batch)
    return ModelWriter(engine, options, batch, _chat(inputs) and engine.chat)


def _chat(inputs: StageInputs) -> bool:
    """Whether prompts are messages: the documents are conversations, and no setting has them concatenated."""
    return columns_of(inputs.ladder.data).conversations and inputs.ladder.tokenizer.chat_template != "none"


def _stored(store: Store, how: dict[str, Any], spools: Iterable[Path]) -> dict[str, WrittenAnswer]:
    """Answers in the store, and in the spools of interrupted runs, of the same teacher, sampled in the same way, to whatever prompts."""
    found: dict[str, WrittenAnswer] = {}
    finished = [path.with_name(META) for path in (store.home.store / KIND).glob(f"*/{MANIFEST}")]
    for path in (*finished, *spools):
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged, of another version, or removed meanwhile
            if read_json(path)["how"] == how:
                found |= read_answers(path.with_name(FILE))
    return found
