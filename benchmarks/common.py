"""Helpers of the benchmarks: models, plans, a synthetic corpus, figures in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from conf.schema.teacher import TrainedTeacher
from models.architectures.shapes import config_for
from models.base.device import precision_of, resolve_device, resolve_precision
from models.base.interface import Interface
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.students.initialise import random_model
from models.training.loop import Plan
from tasks.runtime.environment import processor


def rungs(ladder: Ladder) -> list[tuple[str, Shape, Training, Objective | None]]:
    """Name, shape, training and objective of the teacher that is trained here, and of every stage."""
    assert isinstance(ladder.teacher, TrainedTeacher)
    return [
        ("teacher", ladder.teacher.shape, ladder.teacher.training, None),
        *((stage.name, shape_of(stage), stage.training, stage.objective) for stage in ladder.stages),
    ]


def shape_of(stage: Stage) -> Shape:
    """The shape of a stage's student, which the ladders that are measured here give."""
    assert stage.student.shape is not None
    return stage.student.shape


def fresh_model(shape: Shape, interface: Interface, seed: int = 0) -> nn.Module:
    """A model with random weights, as a stage with random initialisation begins."""
    return random_model(config_for(shape, interface), interface.workload, seed)


def plan_for(ladder: Ladder, training: Training, objective: Objective | None, vocabulary: int | None, seed: int = 0) -> Plan:
    """The plan by which `models.training.loop.train` trains a rung of the ladder."""
    return Plan(training, objective, seed, vocabulary, resolve_device(ladder.compute.device), precision_of(ladder, training))


def automatic_precision() -> str:
    """`bf16` or `fp32`: that which `auto` takes on this machine; on others bf16 would be emulated."""
    return resolve_precision("auto", resolve_device("auto"))


def random_corpus(folder: Path, interface: Interface, tokens: int = 1_000_000) -> Corpus:
    """A corpus of random ids in an existing folder: a step costs the same whatever the text says."""
    assert interface.vocabulary is not None
    generator = np.random.default_rng(0)
    lengths = {"train": tokens, "valid": 10_000, "test": 10_000}
    splits = {}
    for name in SPLITS:
        values = generator.integers(0, interface.vocabulary, lengths[name], dtype=np.uint16)
        one = np.zeros(1, dtype=np.int64)
        splits[name] = Split(values, np.array([0, len(values)]), one - 1, one.astype(np.int32), np.array([len(values)]))
    info = CorpusInfo(
        "causal-lm",
        interface.sequence_length,
        interface.vocabulary,
        interface.end_id,
        interface.pad_id,
        (),
        ("all",),
        None,
        dict.fromkeys(SPLITS, 1),
        lengths,
    )
    write_corpus(folder, info, splits)
    return Corpus(folder, "random")


def machine(device: str) -> str:
    """Description of the machine that measured a figure."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def spread(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """`median (least - most)`."""
    return f"{form.format(statistics.median(values))} ({form.format(min(values))} - {form.format(max(values))})"
