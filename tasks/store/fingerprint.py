"""What makes two computations the same: settings that change numbers, hashed as canonical JSON before anything is computed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from conf.schema.ladder import Ladder, Stage, TrainedTeacher
from conf.schema.lessons import Signals, Training
from models.base.numerics import NUMERICS
from tasks.training.signal_policy import identity_of_signals

T = TypeVar("T")


def canonical(value: Any, where: str = "identity") -> Any:
    """Reduce a value to what JSON writes in one way only.

    Raises:
        TypeError: Something without a stable identity, naming where it stands.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value}, which JSON cannot write; use None or a finite number")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys must be strings")
        return {key: canonical(value[key], f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which has no stable identity; pass a string, a number, a list or a mapping")


def fingerprint(identity: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `identity`, in hexadecimal."""
    text = json.dumps(canonical(identity), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def settings_hash(ladder: Ladder, proof: bool = False) -> str:
    """What tells whether two runs are of the same settings and purpose: a proof goes on with a proof, and a run with a run."""
    return fingerprint(ladder.model_dump(mode="json") | ({"purpose": "proof"} if proof else {}))


def numeric_settings(settings: BaseModel) -> dict[str, Any]:
    """The settings that can change a number: every field not marked `identity=False`, at any depth."""
    kept: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("identity") is False:
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
) -> dict[str, Any]:
    """Identity of a stage.

    Args:
        ladder: The ladder it belongs to.
        stage: Its settings.
        precision: As resolved, never `auto`.
        data: Content hash of the corpus.
        teachers: Weight hashes of its teachers, nearest first.
        parent: Weight hash of the model that its first weights are made from, where that is not the nearest teacher.
        signals: What a cache of the teachers' answers holds; None: they answer live, whether that was set or chosen.
    """
    settings = numeric_settings(stage) | {"training": _training(stage.training, precision, ladder.evaluation.examples)}
    settings["seed"] = ladder.stage_seed(stage)
    if signals is not None:
        settings["signals"] = identity_of_signals(signals)
    borrowed = {"parent": parent} if parent and parent not in teachers[:1] and stage.student.initialisation != "random" else {}
    return {"kind": "stage", "numerics": NUMERICS, **settings, "data": data, "teachers": list(teachers), **borrowed}


def teachers_of(stage: Stage, lineage: Sequence[T]) -> tuple[T, ...]:
    """Those of the models above a stage that teach it, nearest first.

    Args:
        stage: Its `teachers` choose.
        lineage: Models above it (or what stands for them), root first.
    """
    parent, root = lineage[-1], lineage[0]
    if stage.teachers == ("none",):
        return ()
    if stage.teachers == ("ancestors",):
        return tuple(reversed(lineage))
    if len(stage.teachers) == 2 and len(lineage) > 1:
        return parent, root
    return (root,) if stage.teachers == ("root",) else (parent,)


def teacher_identity(ladder: Ladder, teacher: TrainedTeacher, precision: str, data: str) -> dict[str, Any]:
    """Identity of a root teacher that is trained here."""
    settings = numeric_settings(teacher) | {"training": _training(teacher.training, precision, ladder.evaluation.examples)}
    return {"kind": "teacher", "numerics": NUMERICS, **settings, "seed": ladder.seed, "data": data}


def changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two identities, one line each: `objective.alpha.start: 0.9 -> 0.5`."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changes(before, after, f"{prefix}{key}.")
        elif canonical(before) != canonical(after):
            lines.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value) or "none"
    text = str(value)
    return text[:12] if len(text) == 64 else text
