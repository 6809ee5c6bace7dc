"""Estimates tokens, time and memory of a training from shapes and throughput."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from conf.schema.ladder import Ladder
from conf.schema.stage.training import Training
from conf.schema.workloads import answers_in_ids
from models.architectures.shapes import Size
from models.base.interface import Interface
from models.losses.chunked import CHUNK_ELEMENTS
from tasks.training.costs.cost_model import answers_of
from tasks.training.costs.examples import AnswerCaches, TrainingExamples
from tasks.training.signals.signal_policy import estimated_bytes, outputs_of


class TrainingEstimate(NamedTuple):
    """A training from its start."""

    tokens: int  # positions, repeated ones as often as they come
    flops: float
    seconds: float
    memory_bytes: float  # peak


def estimate(
    training: Training, examples: int, size: Size, flops: float, speed: float, teachers: Sequence[Size], vocabulary: int, precision: str
) -> TrainingEstimate:
    """Estimate a training.

    Args:
        training: Its schedule.
        examples: That it trains on, repeated ones as often as they come.
        size: Of the model that is trained.
        flops: Operations, those of its teachers included.
        speed: FLOP/s to expect.
        teachers: Those that it learns from; none: labels alone.
        vocabulary: Ids of a language model, 0 for others.
        precision: `bf16` or `fp32`.
    """
    positions = examples * size.tokens
    micro = -(-examples // training.steps) // training.accumulation * size.tokens
    bytes_each = 2 if precision == "bf16" else 4
    # Weights, gradients and AdamW's two moments in fp32; the frozen teacher; activations of a layer as Korthikanti et al. 2022
    # (arXiv:2205.05198) count them without the attention matrix, of every layer, or of one and the values between all of them; five
    # copies of a chunk of logits in fp32 for each model.
    memory = 16.0 * size.parameters + sum(4.0 * teacher.parameters for teacher in teachers)
    layer, between = 17 * bytes_each, 4
    memory += micro * size.width * (layer + size.layers * between if training.recompute else size.layers * layer)
    memory += min(micro * max(vocabulary, 1), CHUNK_ELEMENTS["cpu"]) * 4 * 5 * (2 if teachers else 1)
    return TrainingEstimate(positions, flops, flops / speed, memory)


def cache_bytes(ladder: Ladder, cached: Sequence[bool], positions: int, interface: Interface, examples: TrainingExamples) -> float:
    """Estimated bytes of all caches of a ladder, as of an empty store.

    Args:
        ladder: The stages.
        cached: Whether each stage's teachers answer from a cache.
        positions: Of an example.
        interface: Of the data.
        examples: Of the training data.
    """
    rows = positions if answers_in_ids(interface.workload) else 1
    answers, outputs = answers_of(ladder, cached, AnswerCaches(examples)), outputs_of(interface)
    kinds = zip(ladder.stages, cached, answers, strict=True)
    return sum(sum(each.new) * rows * estimated_bytes(stage.signals, outputs) for stage, stored, each in kinds if stored)
