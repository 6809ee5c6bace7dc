"""Identity of a training: the settings that change numbers, and its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from conf.schema.base import is_unset
from conf.schema.ladder import Ladder
from conf.schema.measures.audit import LEAST_DOCUMENTS
from conf.schema.stage.signals import Signals
from conf.schema.stage.stage import Stage
from conf.schema.stage.training import Training
from conf.schema.teacher import CheckpointTeacher, TrainedTeacher
from models.base.files import file_sha256
from models.base.numerics import NUMERICS
from models.embeddings.sentence_folder import is_sentence_folder, read_pooling
from tasks.records.run import Kind
from tasks.store.fingerprint import fingerprint

T = TypeVar("T")
LEAST_DOCUMENTS_BEFORE = 10
WRITING = ("fraction", "buffer", "reuse", "prompt", "tokens", "sampling_temperature")  # settings of text that the student writes


def settings_hash(ladder: Ladder, kind: Kind = "ladder") -> str:
    """Hash of a run's settings and purpose: a proof goes on with a proof, and a run with a run."""
    plain = known_settings(ladder)
    plain["teacher"].pop("allow_poor", None)  # a run that was refused for its teacher goes on where it is let teach
    if ladder.audit.min_documents == LEAST_DOCUMENTS:
        plain["audit"]["min_documents"] = LEAST_DOCUMENTS_BEFORE  # a run that was interrupted before the default rose is continued
    if ladder.tracking == "mlflow":
        del plain["tracking"]  # a run that was interrupted before this setting existed is still continued
    return fingerprint(plain | ({"purpose": kind} if kind in ("proof", "search") else {}))


def known_settings(settings: BaseModel) -> dict[str, Any]:
    """All settings as plain JSON, without those that were added later and have their defaults."""
    return _without_unset(settings, settings.model_dump(mode="json"))


def _without_unset(settings: Any, plain: Any) -> Any:
    """The dumped settings without those that were added later and have their defaults, at any depth."""
    if isinstance(settings, BaseModel):
        names = (name for name in type(settings).model_fields if not is_unset(settings, name))
        return {name: _without_unset(getattr(settings, name), plain[name]) for name in names}
    if isinstance(settings, tuple | list):
        return [_without_unset(item, dumped) for item, dumped in zip(settings, plain, strict=True)]
    return plain


def numeric_settings(settings: BaseModel) -> dict[str, Any]:
    """The settings that can change a number, at any depth: no field marked `identity=False`, nor an added one that has its default."""
    kept: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        if (isinstance(extra, dict) and extra.get("identity") is False) or is_unset(settings, name):
            continue
        kept[name] = _plain(getattr(settings, name))
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return numeric_settings(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _training(training: Training, precision: str, examples: int) -> dict[str, Any]:
    plain = numeric_settings(training) | {"precision": precision}
    if training.patience is None:
        del plain["validate_every"]  # validation only watches, unless it may end the training
    else:
        plain["validation_examples"] = examples
    return plain


def stage_identity(
    ladder: Ladder,
    stage: Stage,
    precision: str,
    data: str,
    teachers: tuple[str, ...],
    parent: str | None = None,
    signals: Signals | None = None,
    teaching: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Identity of a stage.

    Args:
        ladder: The ladder it belongs to.
        stage: Its settings.
        precision: As resolved, never `auto`.
        data: Content hash of the corpus.
        teachers: Weight hashes of its teachers, nearest first.
        parent: Weight hash of the model that its first weights are made from, where that is not the nearest teacher.
        signals: Settings of the cache of the teachers' answers; None: they answer live, whether that was set or chosen.
        teaching: Its turns, members and checkpoints, where it has any; see `Teaching.identity`.
    """
    settings = numeric_settings(stage) | {"training": _training(stage.training, precision, ladder.evaluation.examples)}
    settings["seed"] = ladder.stage_seed(stage)
    if stage.student.source == "checkpoint":
        existing = Path(str(stage.student.path))
        settings["student"]["checkpoint"] = file_sha256(existing / "config.json")  # its weights are in `sha256`
        if is_sentence_folder(existing):
            settings["student"]["pooling"] = asdict(read_pooling(existing))
    if signals is not None:
        settings["signals"] = identity_of_signals(signals)
    elif own := _live_signals(stage.signals):
        # Since ids that a teacher with another tokenizer cannot express do not count.
        settings["signals"] = own | ({"unheard": "left out"} if stage.signals.on_policy and stage.objective.alignment != "none" else {})
    borrowed = {"parent": parent} if parent and parent not in teachers[:1] and stage.student.initialisation != "random" else {}
    return {"kind": "stage", "numerics": NUMERICS, **settings, "data": data, "teachers": list(teachers), **(teaching or {}), **borrowed}


def teachers_of(stage: Stage, lineage: Sequence[T]) -> tuple[T, ...]:
    """The teachers of a stage among the models above it, nearest first; of early checkpoints the root alone.

    Args:
        stage: Its `teachers` choose.
        lineage: Models above it, or placeholders of planned ones, root first.
    """
    parent, root = lineage[-1], lineage[0]
    if stage.teachers == ("none",):
        return ()
    if stage.teachers in (("ancestors",), ("rising",), ("best",)):
        return tuple(reversed(lineage))
    if len(stage.teachers) == 2 and len(lineage) > 1:
        return parent, root
    return (root,) if stage.teachers in (("root",), ("checkpoints",)) else (parent,)


def teacher_identity(ladder: Ladder, teacher: TrainedTeacher, precision: str, data: str) -> dict[str, Any]:
    """Identity of a root teacher that is trained here."""
    settings = numeric_settings(teacher) | {"training": _training(teacher.training, precision, ladder.evaluation.examples)}
    return {"kind": "teacher", "numerics": NUMERICS, **settings, "seed": ladder.seed, "data": data}


def fine_tuning_identity(
    ladder: Ladder, teacher: CheckpointTeacher, checkpoint: dict[str, Any], training: Training, precision: str, data: str
) -> dict[str, Any]:
    """Identity of a root teacher that is a checkpoint trained on; `checkpoint` is that of the model it begins as."""
    named: dict[str, Any] = {"classes": list(teacher.classes)} if teacher.classes else {}
    if teacher.class_weights != "none":
        named["class_weights"] = teacher.class_weights
    if teacher.rationale is not None:
        named["rationale"] = teacher.rationale
    settings = {"training": _training(training, precision, ladder.evaluation.examples), "seed": ladder.seed, "data": data}
    return {"kind": "teacher", "numerics": NUMERICS, "checkpoint": checkpoint, **named, **settings}


def identity_of_signals(signals: Signals) -> dict[str, Any]:
    """The settings of cached signals that change a stage's numbers; live ones have no part in its identity."""
    if signals.kind == "sampled":
        return {"kind": signals.kind, "draws": signals.draws, "seed": signals.seed}
    return {"kind": signals.kind, "k": signals.k} if signals.kind == "top-k" else {"kind": signals.kind}


def _live_signals(signals: Signals) -> dict[str, Any]:
    """The settings of live signals that change a stage's numbers: of text that the student writes, and of an endpoint; mostly none."""
    own: dict[str, Any] = {}
    if signals.on_policy:
        own = {"source": signals.source, **{name: getattr(signals, name) for name in WRITING}}
    if signals.endpoint is not None:
        own |= {"endpoint": numeric_settings(signals.endpoint), "k": signals.k}
    return own


def untaught(stage: Stage) -> Stage:
    """The untaught control: the same student with the same first weights, data and steps, trained from labels alone."""
    return stage.model_copy(update={"teachers": ("none",), "objective": stage.objective.of_labels(), "signals": Signals()})
