"""Find or extend the cached teacher signals of a training, under a lock.

Every stage, arm and trial with the same teacher and data shares one cache, whatever its temperature, alpha, steps or seed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import LadderError
from conf.home import disk_errors
from conf.schema.stage.signals import Signals
from conf.schema.workloads import answers_in_ids
from models.architectures.token_answers import TokenAnswers
from models.base.files import read_json
from models.base.numerics import NUMERICS
from models.base.processes import process_count, process_rank, wait_for_all
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.data.tokenizers import tokenizer_hash
from models.signals.cache import MANIFEST, ORDER, TOLERANCE, Keys, Logits, SignalCache, refuse_another
from models.signals.codec import FORMAT
from models.signals.fill import fill_cache, id_order, needed_keys, select_examples
from models.signals.sources import SignalSource, rows, stored
from tasks.records.format import estimate, rate
from tasks.records.run import StageRecord
from tasks.runtime import cancellation as stopping
from tasks.runtime.logs import log
from tasks.runtime.progress import LINE_SECONDS
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.fingerprint import fingerprint
from tasks.store.store import SHOWN, Found, Store
from tasks.training.signals.signal_policy import describe, outputs_of, size_of_signals
from tasks.training.work import Work

KIND = "signals"  # part of the store
CHECKED = 4  # examples whose answers are compared with the teacher's before a training


@dataclass(frozen=True)
class CachedSignals:
    """The cached answers of one teacher for a training.

    Attributes:
        text: For the record.
        examples: That the teacher answered for this model, all attempts together.
        copied: Answers in the cache that were given to other data with the same examples.
        source: Of its answers.
        seconds: That these answers took.
        all_seconds: That all answers which the training needs take, those included that others had stored.
    """

    text: str
    examples: int
    copied: int
    source: SignalSource
    seconds: float
    all_seconds: float


def signals_for(
    work: Work,
    signals: Signals,
    record: StageRecord,
    teacher: nn.Module,
    corpus: Corpus,
    batches: TrainingBatches,
    device: str,
    precision: str,
    context: Context,
    together: Path,
    span: range,
) -> CachedSignals:
    """Find the cache of a teacher's signals, add the answers that a training lacks, and compare a few with the teacher's.

    The cache grows under its lock until the training has all it needs, so `find_or_compute`, which knows only whole results, does not fit.

    Args:
        work: The model that is trained.
        signals: Settings of the cache.
        record: Of the teacher.
        teacher: On its device; in the student's vocabulary.
        corpus: In the student's vocabulary.
        batches: Of the training.
        device: Where the teacher runs.
        precision: `bf16` or `fp32`, in which it runs.
        context: The run.
        together: Folder in which the processes of this training wait for one another; the first one holds the lock for all.
        span: Steps in which this teacher is asked.

    Raises:
        UserError: The folder in the store is another's, or the teacher answers with NaN.
        LadderError: The teacher's answers differ from the stored ones.
        StoreError: The disk is full; finished parts are kept.
        RunCancelled: The run was asked to stop; finished parts are kept.
    """
    if isinstance(teacher, TokenAnswers):
        return _stored_signals(work.name, signals, record, teacher)
    identity = cache_identity(signals, record, corpus, precision)
    digest, store, own = fingerprint(identity), store_of(context), fingerprint(work.identity)
    logits = logits_of(teacher, corpus, device, precision)
    first, share = process_rank() == 0, (process_rank(), process_count())

    def meet(place: str) -> None:
        wait_for_all(together, f"{place}-{digest[:SHOWN]}-{span.start}-{span.stop}", stopping.requested)

    with disk_errors(context.paths), stopping.training(work.name), store.lock(digest) if first else nullcontext():
        steps, keys = needed_keys(batches, span)
        if not first:
            meet("prepared")
        found = _folder(store, identity, digest, record.name, context, batches, logits)
        cache = SignalCache.open(found.folder, digest, identity, log.warning)
        if first:
            if cache.missing(keys).any():
                _copy_answers(cache, keys, identity, store)
            meet("prepared")
        missing = int(cache.missing(keys).sum())
        if first:
            log.info("%s: signals of %s %s (%s), %s", work.name, record.name, _state(missing, len(keys)), digest[:12], describe(signals))
        if missing:
            said = _progress(work.name, -(-missing // share[1])) if first else _silent
            fill_cache(cache, batches, steps, logits, own, on_example=said, should_stop=stopping.requested, share=share)
        meet("filled")
        if share[1] > 1:
            cache = SignalCache.open(found.folder, digest, identity, log.warning)
        if steps and first:
            check(cache, batches.at(steps[0]), logits, digest)
    computed, seconds = cache.made_for(own)
    each, copied = cache.bytes / max(cache.rows, 1), cache.made_for("")[0]
    others = f", {copied:,} copied" if copied else ""
    text = f"{describe(signals)}, {each:.1f} bytes each, {computed:,} examples computed in {seconds:.1f} s{others} ({digest[:12]})"
    return CachedSignals(text, computed, copied, cache.source, seconds, len(keys) * cache.seconds_an_example)


def _stored_signals(name: str, signals: Signals, record: StageRecord, answers: TokenAnswers) -> CachedSignals:
    """The signals of a teacher that is a file of answers: these are the cache, and nothing is copied."""
    ids, kept = answers.listed, describe(signals)
    kept = f"{kept} of {ids} in the file" if signals.k < ids else f"top-k, all {ids} ids of the file"
    log.info("%s: signals of %s are its answers (%s), %s", name, record.name, record.fingerprint[:12], kept)
    return CachedSignals(f"{kept} ({record.fingerprint[:12]})", 0, 0, stored(answers, signals.k), 0.0, 0.0)


def cache_identity(signals: Signals, record: StageRecord, corpus: Corpus, precision: str) -> dict[str, Any]:
    """Identity of a cache; the amount of data that it holds is no part of it."""
    interface = corpus.interface
    outputs = outputs_of(interface)
    return {
        "kind": KIND,
        "numerics": NUMERICS,
        "format": FORMAT,
        "teacher": record.weights_sha256,
        "tokenizer": tokenizer_hash(corpus.tokenizer_folder) if corpus.tokenizer_folder else None,
        "data": corpus.content_hash,
        "workload": interface.workload,
        "sequence_length": interface.sequence_length,
        "vocabulary": outputs,
        "signal": signals.kind,
        "size": size_of_signals(signals, outputs),
        "seed": signals.seed if signals.kind == "sampled" else 0,
        "precision": precision,
    }


def logits_of(teacher: nn.Module, corpus: Corpus, device: str, precision: str) -> Logits:
    """The teacher as it would answer live: frozen, under autocast where training is."""
    teacher.eval().requires_grad_(False)
    interface = corpus.interface
    vocabulary = interface.vocabulary if answers_in_ids(interface.workload) else None

    def logits(batch: Batch) -> Tensor:
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return rows(teacher, batch.to(torch.device(device)), vocabulary).float()

    return logits


def check(cache: SignalCache, batch: Batch, logits: Logits, fingerprint: str) -> None:
    """Put a handful of examples to the teacher again.

    Raises:
        LadderError: It answers otherwise than the cache.
    """
    few = select_examples(batch, range(min(CHECKED, len(batch.targets))))
    distance = cache.distance(few, logits)
    if not distance <= TOLERANCE:
        raise LadderError(
            f"The signals {fingerprint[:12]} in {cache.folder} are not those of this teacher: over {len(few.targets)} examples they are "
            f"{distance:.3f} apart (total variation), at most {TOLERANCE:g} is rounding. Move the folder away; they are then computed anew."
        )


def _folder(
    store: Store, identity: dict[str, Any], fingerprint: str, name: str, context: Context, batches: TrainingBatches, logits: Logits
) -> Found:
    for folder in (store.home.store / KIND).glob(f"*-{fingerprint[:SHOWN]}"):
        refuse_another(folder, fingerprint, identity)
    found = store.find(KIND, fingerprint, closed=False)
    if found is not None:
        return found

    known = _siblings(store, identity)

    def write(folder: Path) -> None:
        if known and (known[0].folder / ORDER).is_file():  # its records can then be copied
            shutil.copyfile(known[0].folder / ORDER, folder / ORDER)
        elif identity["signal"] != "full":
            np.save(folder / ORDER, id_order(batches.at(0), logits, identity["vocabulary"]), allow_pickle=False)

    return store.publish(KIND, name, identity, fingerprint, context.made, write)


def _siblings(store: Store, identity: dict[str, Any]) -> list[Found]:
    """Caches of the same teacher, coded in the same way, of other data; the newest first."""
    found: list[tuple[float, Found]] = []
    for path in (store.home.store / KIND).glob(f"*/{MANIFEST}"):
        with suppress(OSError, ValueError, KeyError):  # damaged, of another version, or removed meanwhile
            manifest, moment = read_json(path), path.stat().st_mtime
            if {**manifest["identity"], "data": None} == {**identity, "data": None} and manifest["identity"]["data"] != identity["data"]:
                found.append((moment, Found(path.parent, manifest)))
    return [each for _, each in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _copy_answers(cache: SignalCache, keys: Keys, identity: dict[str, Any], store: Store) -> None:
    """Copy the answers that the teacher gave to the same examples in other data."""
    for found in _siblings(store, identity):
        with suppress(OSError):  # removed meanwhile
            other = SignalCache.open(found.folder, found.manifest["fingerprint"], found.manifest["identity"], log.warning)
            if np.array_equal(other.coding.ids, cache.coding.ids) and (copied := cache.copy(other, keys)):
                log.info("signals: %d of %d answers copied from those to other data (%s)", copied, len(keys), found.folder.name)


def _state(missing: int, examples: int) -> str:
    if not missing:
        return "found in the store"
    return f"to be computed for {missing:,} of {examples:,} examples"


def _silent(done: int) -> None:
    """Of a process whose neighbour speaks for all."""


def _progress(name: str, missing: int) -> Callable[[int], None]:
    began = last = time.monotonic()
    said = 0

    def on_example(done: int) -> None:
        nonlocal last, said
        moment = time.monotonic()
        if done > said and (done == missing or moment - last >= LINE_SECONDS):
            last, said = moment, done
            speed = done / max(moment - began, 1e-9)
            left = (missing - done) / max(speed, 1e-9)
            log.info("%s: signals %d/%d, %s examples/s, %s left", name, done, missing, rate(speed), estimate(left))

    return on_example
