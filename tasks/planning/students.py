"""Settle the students of a ladder: each gets a shape, a configuration or a folder.

A stage may say of its student no more than a number of parameters, the path of a `config.json`, or the name of a checkpoint. Their
meaning depends on the teacher, on files and on the hub, which the schema does not read; so they are settled when a run or a plan begins,
and everything after it, the record of the run too, has the settings in full.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Shape, Student, is_settled
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher
from conf.schema.workloads import has_classes
from models.base.files import read_json, weights_sha256
from models.base.interface import Interface
from tasks.data.prepare import teacher_folder
from tasks.runtime.runs.run_registry import Context
from tasks.teachers.teacher_source import NotConverted, gguf_file, resolve_checkpoint

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def settle_students(ladder: Ladder, context: Context) -> Ladder:
    """The ladder with every student in full; the same ladder where nothing is left open.

    Raises:
        UserError: A student's file or checkpoint is missing or does not fit, or the teacher has no such size.
    """
    stages = [_settled(ladder, index, context) for index in range(len(ladder.stages))]
    if all(new is old for new, old in zip(stages, ladder.stages, strict=True)):
        return ladder
    return ladder.model_copy(update={"stages": tuple(stages)})


def _settled(ladder: Ladder, index: int, context: Context) -> Stage:
    stage, key = ladder.stages[index], f"stages[{index}].student"
    student = stage.student
    if is_settled(student):
        return stage
    if student.parameters is not None:
        changed = _of_size(ladder, student, student.parameters, key, context)
    elif isinstance(student.config, str):
        changed = {"config": _read_config(Path(context.base, os.path.expanduser(student.config)), student.config, f"{key}.config")}
    else:
        changed = _checkpoint(ladder, student, key, context)
    return stage.model_copy(update={"student": Student.model_validate({**student.model_dump(exclude={"parameters"}), **changed})})


def settled_notes(before: Ladder, after: Ladder) -> list[str]:
    """A line for each student that was described by its number of parameters: its sizes; a route may have left others out."""
    notes, asked = [], {stage.name: stage for stage in before.stages}
    for new in after.stages:
        old = asked.get(new.name, new)
        if old.student.parameters is not None and new is not old:
            made = new.student.shape.model_dump(exclude_defaults=True) if new.student.shape else new.student.config
            words = json.dumps(made, default=str).replace('"', "")
            kind = "shape" if new.student.shape else "config"
            notes.append(f"{new.name}: {old.student.parameters:,} parameters became {kind}: {words}")
    return notes


def _of_size(ladder: Ladder, student: Student, parameters: int, key: str, context: Context) -> dict[str, Any]:
    from models.students.sizes import student_of_size

    if not isinstance(ladder.teacher, CheckpointTeacher) and ladder.teacher.shape is None:
        allowed = "a shape or a config, where the teacher is no model whose architecture it could have"
        raise UserError.about(f"{key}.parameters", parameters, allowed, "Describe the student itself.")
    config, interface = teacher_and_interface(ladder, context)
    made = student_of_size(config, parameters, interface, key, prune=student.initialisation == "prune")
    return {"shape": made.model_dump()} if isinstance(made, Shape) else {"config": made}


def teacher_and_interface(ladder: Ladder, context: Context) -> tuple[Any, Interface]:
    """The root's configuration, and the interface of the data as far as the settings and the root tell it before they are prepared."""
    from models.architectures.shapes import config_for
    from tasks.planning.preflight import expected_image, expected_interface

    interface, teacher = expected_interface(ladder, None, expected_image(ladder, context)), ladder.teacher
    if isinstance(teacher, AnswersTeacher):
        remedy = "Answers have no architecture that a size could follow: give every stage a shape or a config."
        raise UserError.about("teacher.source", "answers", "a model, where stages are given by their parameters", remedy)
    if not isinstance(teacher, CheckpointTeacher):
        return config_for(teacher.shape, interface), interface
    try:
        folder = resolve_checkpoint(teacher, context)
    except NotConverted:
        config = _gguf_config(teacher, context)
        return config, _like_the_teacher(ladder, interface, config, config.vocab_size)
    except UserError:
        if teacher.shape is None:
            raise
        return config_for(teacher.shape, interface), interface
    from models.architectures.checkpoint import read_config

    config, vocabulary = read_config(folder, workload=ladder.workload), interface.vocabulary
    if ladder.tokenizer.is_given and ladder.workload != "image-classification":
        from models.data.tokenizers import id_count, load_teacher

        vocabulary = id_count(load_teacher(teacher_folder(ladder, context) or folder))
    return config, _like_the_teacher(ladder, interface, config, vocabulary)


def _gguf_config(teacher: CheckpointTeacher, context: Context) -> Any:
    from models.architectures.gguf import read_config

    return read_config(gguf_file(teacher, context))


def _like_the_teacher(ladder: Ladder, interface: Interface, config: Any, vocabulary: int | None) -> Interface:
    """The interface with the classes, the image and the vocabulary that the teacher has."""
    classes = interface.classes if ladder.data.classes or not has_classes(ladder.workload) else int(config.num_labels)
    image = interface.image_shape
    side = getattr(config, "image_size", None)
    if image is not None and isinstance(side, int):
        image = (getattr(config, "num_channels", image[0]), side, side)
    return replace(interface, classes=classes, image_shape=image, vocabulary=vocabulary)


def _read_config(file: Path, given: str, key: str) -> dict[str, Any]:
    """The settings in a `config.json`, or in the one of a folder."""
    file = file / "config.json" if file.is_dir() else file
    try:
        found = read_json(file)
    except OSError as error:
        raise UserError.about(key, given, "the path of a config.json", f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError.about(key, given, "a file of JSON", f"{file} does not parse: {error}.") from error
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise UserError.about(key, given, "a config.json with model_type", f"{file} names none. Add it, such as qwen3.")
    from models.architectures.configs import DECIDED, without_ignored

    return {name: value for name, value in without_ignored(found).items() if name not in DECIDED}


def _checkpoint(ladder: Ladder, student: Student, key: str, context: Context) -> dict[str, Any]:
    """The local folder of a checkpoint and the hash of its weights."""
    source = CheckpointTeacher(path=cast(str, student.path), revision=student.revision, sha256=student.sha256)
    try:
        folder = resolve_checkpoint(source, context).absolute()
    except NotConverted:
        remedy = "Convert it first: load it with transformers and call save_pretrained(folder)."
        raise UserError.about(f"{key}.path", student.path, "a folder with safetensors weights, not a GGUF file", remedy) from None
    except UserError as error:
        raise UserError(str(error).replace("teacher.", f"{key}.")) from error
    if ladder.workload != "image-classification":
        _check_tokenizer(ladder, folder, key, context)
    return {"path": str(folder), "sha256": weights_sha256(folder)}


def _check_tokenizer(ladder: Ladder, folder: Path, key: str, context: Context) -> None:
    """A student's ids must mean what its teacher's mean; one without a tokenizer of its own is taken at its word."""
    from models.data import tokenizers

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return
    allowed, remedy = (
        "a checkpoint with the ladder's tokenizer",
        "Choose one that was made with it, or set tokenizer.kind: folder with its folder as path.",
    )
    if ladder.tokenizer.kind == "bpe":
        raise UserError.about(
            f"{key}.path", str(folder), f"{allowed}, which is trained here", "Use tokenizer.kind teacher, bytes or folder."
        )
    teacher, ours = ladder.teacher, tokenizers.load(folder).get_vocab()
    if ladder.tokenizer.kind == "folder":
        theirs = tokenizers.load_teacher(cast(Path, teacher_folder(ladder, context))).get_vocab()
    elif ladder.tokenizer.kind == "bytes" or not isinstance(teacher, CheckpointTeacher):
        theirs = tokenizers.bytes_tokenizer().get_vocab()
    else:
        try:
            theirs = tokenizers.load_teacher(resolve_checkpoint(teacher, context)).get_vocab()
        except NotConverted:  # a plan; the run compares them
            return
    if ours != theirs:
        given = f"{folder} with a vocabulary of {len(ours)} ids"
        raise UserError.about(f"{key}.path", given, f"{allowed}, which has {len(theirs)} ids", remedy)
