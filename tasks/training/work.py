"""A model to make, and the record of one that is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from conf.errors import UserError
from conf.schema.stage.objective import ClassWeights, Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.training import Training
from models.embeddings.sentence_folder import model_sha256
from models.losses.schedules import Turns
from tasks.records.run import StageRecord, stage_record
from tasks.runtime.runs.run_registry import Context
from tasks.store.cached import StoredResult

if TYPE_CHECKING:
    from torch import nn

    from models.architectures.shapes import Size

TOGETHER = "workers"  # beside the checkpoints of a training: what its workers and its run tell one another


@dataclass(frozen=True)
class Work:
    """A model to make: its identity, and how to make it if the store does not hold it.

    Attributes:
        name: Of the stage, or `teacher`.
        kind: `stage` or `teacher`: the part of the store.
        identity: The parts that are hashed.
        training: Its schedule.
        objective: None: labels alone.
        seed: Of batches and weights.
        make: Builds the untrained model from its nearest teacher, on the processor; may keep measurements in a folder, for a resumed
            training.
        teachers: Records of its teachers, nearest first.
        vocabulary: `used`: the model has only the ids that the data use.
        signals: Settings of the cache of the teachers' answers; None: they answer live.
        class_weights: Weights of classes in the cross-entropy.
        parent: The model that the untrained one is built from; None: its nearest teacher.
        turns: Of the teachers; None: there is none.
        keep: Steps after which the weights are kept, beside the finished ones.
        writing: Settings of the text that the student writes; None: it learns from the data alone.
        served: Settings of the signals of an endpoint, which answers in place of the teacher; None: there is none.
        rationale: Weight of rationales in the loss, where the data hold any, as set.
        pretrained: The model begins with weights that were trained before; its quality is then measured before the first step.
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
    class_weights: ClassWeights = "none"
    parent: StageRecord | None = None
    turns: Turns | None = None
    keep: tuple[int, ...] = ()
    pretrained: bool = False
    writing: Signals | None = None
    served: Signals | None = None
    rationale: float | None = None


def require_started(context: Context, name: str, remedy: str) -> None:
    """Refuse to compute a model above `--start-at`.

    Raises:
        UserError: `name` comes before it and the store does not hold it.
    """
    if name in context.kept:
        raise UserError.about("--start-at", context.start_at, f"a stage whose predecessors are finished; {name} is not", remedy)


def record_of(folder: Path, name: str, fingerprint: str, size: Size, **trained: Any) -> StageRecord:
    """The record of a model whose weights lie in `folder`: `trained` holds the figures of its training, by default none here."""
    untrained = {"steps": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0}
    return StageRecord(
        name=name,
        fingerprint=fingerprint,
        identity={},  # in the manifest
        folder="",
        weights_sha256=model_sha256(folder),
        parameters=size.parameters,
        non_embedding=size.non_embedding,
        flops_per_token=size.forward_flops / size.tokens,
        reused=False,
        **{**untrained, **trained},
    )


def read_record(found: StoredResult, *, resumed_at: int | None = None) -> StageRecord:
    """The record of a verified folder, with where it lies and whether it was found there or made now."""
    manifest = found.manifest
    record = stage_record(found.folder)
    where = {"folder": str(found.folder), "identity": manifest["identity"], "fingerprint": manifest["fingerprint"]}
    how = {"reused": found.reused, "reused_from": manifest["run"] if found.reused else None, "resumed_at": resumed_at}
    return record.model_copy(update=where | how)
