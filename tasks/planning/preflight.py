"""Preflight checks before any computation."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from conf.errors import TransientError, UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.student import Shape
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher
from conf.schema.workloads import has_classes
from models.architectures.checkpoint import check_image
from models.architectures.composite import language_config
from models.architectures.gguf import read_config
from models.architectures.shapes import Size, build, config_for, count, with_used_ids
from models.base.device import memory_bytes, resolve_device
from models.base.interface import Interface
from models.data.corpus import Corpus
from models.data.tokenizers import BYTES_VOCABULARY, id_count, load_teacher
from models.export.formats import check_format
from models.export.gguf_tokenizer import check_tokenizer
from models.students.initialise import layer_sources, student_on_meta
from models.students.reduced_tokenizer import used_ids
from models.training.compiled import check_compiler
from models.training.step import check_batch_statistics
from tasks.data.prepare import check_patches, patches_of, shapes_of, teacher_folder
from tasks.data.reading.sources import first_image_shape
from tasks.evaluation.harness_tasks import check_tasks
from tasks.generation.check import check_generation
from tasks.lifecycle.request import kept_before
from tasks.runtime.runs.run_registry import Context
from tasks.teachers.fit import check_checkpoint
from tasks.teachers.teacher_source import NotConverted, gguf_file, is_local, resolve_checkpoint
from tasks.training.signals.signal_policy import check_signals
from tasks.training.student import larger, origin
from tasks.training.workers.check import check_workers

CLASSES = 10  # where nothing says how many there are
FP32_BYTES = 4  # of a weight


def expected_interface(ladder: Ladder, corpus: Corpus | None, image: tuple[int, int, int] | None = None) -> Interface:
    """The prepared corpus's interface; before it exists, by the settings, and ten classes else.

    Args:
        ladder: The ladder.
        corpus: Its data; None: not prepared yet.
        image: (C, H, W) of the first image, where it can be read; else the least square that the patches of all shapes fit into.
    """
    if corpus is not None:
        return corpus.interface
    classes = (ladder.data.classes or CLASSES) if has_classes(ladder.workload) else 0
    if ladder.workload == "image-classification" and image is None:
        side = math.lcm(*(patch for _, patch in patches_of(ladder)))
        image = ladder.data.image_shape or (3, side, side)
    vocabulary = None
    if ladder.workload != "image-classification":
        vocabulary = BYTES_VOCABULARY if ladder.tokenizer.kind == "bytes" else ladder.tokenizer.vocabulary or BYTES_VOCABULARY
    ids = (0, 0) if vocabulary else (None, None)
    return Interface(ladder.workload, ladder.data.sequence_length, vocabulary, *ids, classes, image)


def expected_image(ladder: Ladder, context: Context) -> tuple[int, int, int] | None:
    """(C, H, W) of the first image; None where there are none, or it cannot be read yet, which a run says."""
    if ladder.workload != "image-classification":
        return None
    with suppress(UserError, TransientError):
        teacher = ladder.teacher
        folder = resolve_checkpoint(teacher, context) if isinstance(teacher, CheckpointTeacher) and is_local(teacher, context) else None
        return first_image_shape(ladder.data, Path(context.base), folder)
    return None


def teacher_on_meta(ladder: Ladder, interface: Interface, context: Context) -> nn.Module | None:
    """The root teacher on the meta device, for its shapes; None where only its path is known and no checkpoint is there.

    Raises:
        UserError: A checkpoint is there and cannot be read, or does not fit the settings; see `check_checkpoint`.
    """
    teacher = ladder.teacher
    if isinstance(teacher, CheckpointTeacher) and is_local(teacher, context):
        try:
            return check_checkpoint(resolve_checkpoint(teacher, context), ladder)
        except NotConverted:
            if teacher.shape is None:
                return _gguf_on_meta(teacher, context, ladder.workload)
    return None if teacher.shape is None else shape_on_meta(teacher.shape, interface)


def _gguf_on_meta(teacher: CheckpointTeacher, context: Context, workload: str) -> nn.Module:
    """The model that a GGUF file describes, before a run converts it."""
    config = read_config(gguf_file(teacher, context))
    with torch.device("meta"):
        return build(config, workload)


def shape_on_meta(shape: Shape, interface: Interface) -> nn.Module:
    """A model of `shape` on the meta device, without memory."""
    with torch.device("meta"):
        return build(config_for(shape, interface), interface.workload)


def _check_shapes(ladder: Ladder) -> None:
    """Refuse shapes whose weights alone exceed this machine's memory, before anything of them is built.

    Raises:
        UserError: Naming the shape.
    """
    room = memory_bytes()
    for key, shape in shapes_of(ladder):
        most = room / FP32_BYTES
        if (parameters := shape.layer_parameters) > most:
            found = (
                f"hidden_size {shape.hidden_size}, layers {shape.layers} and feed_forward {shape.feed_forward}, {parameters:,} parameters"
            )
            allowed = f"a model whose weights fit into this machine's memory: at most {most:,.0f} parameters"
            raise UserError.about(key, found, allowed, "Make it smaller, or plan on the machine that trains it.")


def _classes(ladder: Ladder, teacher: nn.Module | None) -> int:
    """Classes that an existing teacher has, which the data must have too; 0: unknown, or its head follows the data."""
    if isinstance(ladder.teacher, AnswersTeacher):
        return len(ladder.teacher.classes)
    known = teacher is not None and isinstance(ladder.teacher, CheckpointTeacher) and ladder.teacher.training is None
    return int(cast(Any, teacher).config.num_labels) if known else 0


def check_ladder(ladder: Ladder, context: Context, corpus: Corpus | None = None) -> tuple[Size | None, list[Size]]:
    """Refuse a ladder that cannot run; returns the sizes of the teacher (None where it is unknown) and of the students.

    Raises:
        UserError: A stage is larger than its teacher, `layers` or `prune` does not fit, `start_at` names no stage, or a task is unreadable.
    """
    kept_before(ladder, context.start_at)
    check_tasks(ladder, Path(context.base))
    if ladder.data.generate is not None:
        check_generation(ladder.data.generate, Path(context.base))
    image = corpus.info.image_shape if corpus else expected_image(ladder, context)
    interface = expected_interface(ladder, corpus, image)
    check_patches(ladder, image)
    _check_shapes(ladder)
    teacher, name = teacher_on_meta(ladder, interface, context), "teacher"
    if teacher is not None and image is not None and isinstance(ladder.teacher, CheckpointTeacher):
        check_image(teacher, image, Path(ladder.teacher.path))
    texts = ladder.workload != "image-classification"
    if texts and corpus is None and teacher is not None and ladder.tokenizer.kind == "teacher" and not ladder.tokenizer.vocabulary:
        interface = replace(interface, vocabulary=language_config(cast(Any, teacher).config).vocab_size)
    if corpus is None and ladder.tokenizer.kind == "folder":
        interface = replace(interface, vocabulary=id_count(load_teacher(cast(Path, teacher_folder(ladder, context)))))
    if corpus is None and has_classes(ladder.workload) and not ladder.data.classes:
        interface = replace(interface, classes=_classes(ladder, teacher) or interface.classes)
    check_signals(ladder, interface)
    used = len(used_ids(corpus)) if corpus is not None and any(stage.student.vocabulary == "used" for stage in ladder.stages) else None

    def sized(model: nn.Module) -> Size:
        size = count(model, interface.sequence_length)
        return size if used is None else with_used_ids(size, model, used)

    root, device = sized(teacher) if teacher is not None else None, resolve_device(ladder.compute.device)
    if (training := getattr(ladder.teacher, "training", None)) is not None:
        check_workers(ladder.compute, training, None, name)
        check_compiler(training.compile, device, "teacher.training.compile")
        if teacher is not None:
            check_batch_statistics(teacher, training, "teacher.training", ladder.compute.processes)
    sizes: list[Size] = []
    for index, stage in enumerate(ladder.stages):
        key = f"stages[{index}].student"
        if stage.student.vocabulary == "used" and used is not None:
            interface = replace(interface, vocabulary=used)
        student = student_on_meta(stage.student, teacher, interface, key)
        check_workers(ladder.compute, stage.training, stage.objective, stage.name)
        check_batch_statistics(student, stage.training, f"stages[{index}].training", ladder.compute.processes)
        check_compiler(stage.training.compile, device, f"stages[{index}].training.compile")
        sizes.append(sized(student))
        most = sizes[-2].parameters if index else root.parameters if root else getattr(ladder.teacher, "parameters", None)
        if most is not None and sizes[-1].parameters > most:
            raise larger(origin(stage.student, key), stage.name, sizes[-1].parameters, name, most)
        if teacher is not None and stage.student.initialisation == "layers":
            layer_sources(student, teacher, interface, key)
        teacher, name = student, stage.name
    for index, export in enumerate(ladder.exports):  # of the last student, which `teacher` is by now
        key = f"exports[{index}].format"
        check_format(export.name, cast(Any, teacher).config.model_type, ladder.workload, key)
        own = isinstance(ladder.teacher, CheckpointTeacher) and ladder.tokenizer.kind == "teacher" and is_local(ladder.teacher, context)
        if export.format == "gguf" and own:
            with suppress(NotConverted):  # a GGUF file, whose tokenizer is read when it is converted
                check_tokenizer(resolve_checkpoint(cast(CheckpointTeacher, ladder.teacher), context), export.name, key)
    return root, sizes
