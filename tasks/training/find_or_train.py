"""Found, resumed or computed: the one way by which a model of the ladder comes into being, the root teacher included."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from conf.errors import UserError
from conf.home import Home, disk_errors
from conf.schema.ladder import Ladder
from conf.schema.lessons import Objective, Signals, Training
from models.base.device import resolve_device, resolve_precision
from models.base.files import weights_sha256
from models.base.interface import Interface
from models.data.corpus import Corpus
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.run_registry import Context
from tasks.runtime.training_slots import training_slot
from tasks.store.fingerprint import changes, fingerprint
from tasks.store.store import Found, Store
from tasks.tracking import tracker as tracking
from tasks.tracking.recorder import Recorder

if TYPE_CHECKING:
    from torch import nn

    from models.architectures.shapes import Size


@dataclass(frozen=True)
class Work:
    """A model to make: its identity, and how to make it if the store does not hold it.

    Attributes:
        name: Of the stage, or `teacher`.
        kind: `stage` or `teacher`: the part of the store.
        identity: What is hashed.
        training: Its schedule.
        objective: None: labels alone.
        seed: Of batches and weights.
        make: Builds the untrained model from its nearest teacher, on the processor; may keep what it measured in a folder, for a resumed
            training.
        teachers: Records of its teachers, nearest first.
        vocabulary: `used`: the model has only the ids that the data use.
        signals: What a cache of the teachers' answers holds; None: they answer live.
        parent: What the untrained model is built from; None: its nearest teacher.
    """

    name: str
    kind: str
    identity: dict[str, Any]
    training: Training
    objective: Objective | None
    seed: int
    make: Callable[[nn.Module | None, Path], nn.Module]
    teachers: tuple[StageRecord, ...] = ()
    vocabulary: Literal["teacher", "used"] = "teacher"
    signals: Signals | None = None
    parent: StageRecord | None = None


def store_of(context: Context) -> Store:
    """The store of a run; what it has to say goes to the log."""
    return Store(context.paths, log.warning)


@functools.lru_cache(maxsize=1)
def tracker_of(home: Home) -> tracking.Tracker:
    """The connection to MLflow, opened once in a process."""
    return tracking.connect(home)


@functools.lru_cache(maxsize=4)
def recorder_of(home: Home, run: str) -> Recorder:
    """What keeps the record of a run, and what is missing in it."""
    return Recorder(tracker_of(home))


def corpus_of(data: DataRecord) -> Corpus:
    """The corpus that a data record names."""
    return Corpus(Path(data.folder), data.content_hash)


def interface_of(corpus: Corpus) -> Interface:
    """What the data ask of every model."""
    info = corpus.info
    return Interface(info.workload, info.sequence_length, info.vocabulary, info.end_id, info.pad_id, info.classes, info.image_shape)


def precision_of(ladder: Ladder, training: Training) -> str:
    """`bf16` or `fp32`, on the device that this process will use."""
    return resolve_precision(training.precision, resolve_device(ladder.compute.device))


def reusable(store: Store, kind: str, mark: str, context: Context, name: str) -> Found | None:
    """The finished result, unless this run was asked to compute it anew and has not done so yet."""
    found = store.find(kind, mark)
    if found and is_fresh(context, name) and found.manifest["run"] != context.run:
        return None
    return found


def is_fresh(context: Context, name: str) -> bool:
    """Whether `--fresh` asks for this model: all of them, or those from `--start-at` on."""
    return context.fresh and name not in context.kept


def require_started(context: Context, name: str, remedy: str) -> None:
    """Refuse to compute what comes before `--start-at`.

    Raises:
        UserError: `name` comes before it and the store does not hold it.
    """
    if name in context.kept:
        raise UserError.about("--start-at", context.start_at, f"a stage whose predecessors are finished; {name} is not", remedy)


def obtain(work: Work, ladder: Ladder, data: DataRecord, context: Context) -> StageRecord:
    """Find the model in the store, or resume or compute it.

    Raises:
        UserError: It would have to be computed, but stands before `--start-at`.
        TrainingDiverged: Its loss left all bounds.
        StoreError: The disk is full.
    """
    store, mark = store_of(context), fingerprint(work.identity)
    with store.lock(mark):
        found = reusable(store, work.kind, mark, context, work.name)
        if found:
            log.info("%s: found in the store (%s), reused", work.name, mark[:12])
            return read_record(found, reused=True)
        require_started(context, work.name, "Run without --start-at, or with the settings that they were made with.")
        from tasks.training.train_model import teach, write_model  # torch is imported where something is computed

        _say_why(store, work, mark, context)
        checkpoints = _checkpoints(store, mark, context, work.name)
        with training_slot(ladder.compute.at_once, context.run):
            taught = teach(work, ladder, corpus_of(data), context, checkpoints)
        found = store.publish(
            work.kind, work.name, work.identity, mark, context.made, lambda folder: write_model(folder, work, mark, taught, data)
        )
        shutil.rmtree(checkpoints, ignore_errors=True)
        return read_record(found, reused=False, resumed_at=taught.trained.resumed_at)


def record_of(folder: Path, name: str, mark: str, size: Size, **trained: Any) -> StageRecord:
    """The record of a model whose weights lie in `folder`: what it is; `trained` says how it came to be, by default not here."""
    untrained = {"steps": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0}
    return StageRecord(
        name=name,
        fingerprint=mark,
        identity={},  # in the manifest
        folder="",
        weights_sha256=weights_sha256(folder),
        parameters=size.parameters,
        non_embedding=size.non_embedding,
        flops_per_token=size.forward_flops / size.tokens,
        reused=False,
        **{**untrained, **trained},
    )


def read_record(found: Found, *, reused: bool, resumed_at: int | None = None) -> StageRecord:
    """The record of a verified folder, with where it lies and whether it was found there or made now."""
    manifest = found.manifest
    record = StageRecord.model_validate_json((found.folder / "record.json").read_text())
    where = {"folder": str(found.folder), "identity": manifest["identity"], "fingerprint": manifest["fingerprint"]}
    how = {"reused": reused, "reused_from": manifest["run"] if reused else None, "resumed_at": resumed_at}
    return record.model_copy(update=where | how)


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
