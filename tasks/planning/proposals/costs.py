"""FLOPs, time, price, memory and disk of a candidate route."""

from __future__ import annotations

from typing import NamedTuple

from conf.schema.ladder import Ladder
from models.base.device import precision_of
from models.base.interface import Interface
from tasks.planning.costs.estimates import cache_bytes, estimate
from tasks.planning.costs.prices import with_extras
from tasks.planning.costs.throughput import Throughput
from tasks.planning.matching import lasting, with_stages
from tasks.planning.proposals.candidates import Candidate
from tasks.planning.proposals.measured import are_cached
from tasks.records.base import Record
from tasks.records.run import TEACHER
from tasks.training.costs.cost_model import Forward, StageFlops, answers_of, ladder_flops
from tasks.training.costs.examples import AnswerCaches, TrainingExamples, examples_trained

FP32_BYTES = 4.0  # of a weight of a teacher that only answers


class StageProposal(Record):
    """A stage of a proposed route.

    Attributes:
        asked: Parameters that were asked for.
        teachers: As its setting says.
        signals: `live`, or the kind of its cache.
        ships: Whether the student ships, or only helps to make the next one.
        flops: Its own, with the answers of its teachers that no earlier stage has stored.
        memory_bytes: Estimated peak.
    """

    name: str
    parameters: int
    asked: int
    initialisation: str
    teachers: tuple[str, ...]
    signals: str
    ships: bool
    steps: int
    tokens: int
    flops: float
    seconds: float
    memory_bytes: float


class RouteCosts(NamedTuple):
    """The needs of a route, its stages trained one after another from an empty store."""

    stages: tuple[StageProposal, ...]
    flops: float
    seconds: float
    price: float
    memory_bytes: float
    disk_bytes: float  # of caches


class Speeds(NamedTuple):
    """Speed of trainings here, and the data that they read."""

    throughput: Throughput
    interface: Interface
    examples: TrainingExamples


def flops_of_route(ladder: Ladder, forwards: list[Forward], examples: TrainingExamples) -> list[StageFlops]:
    """Operations of every stage by the one law; `forwards` begin with the root's."""
    return ladder_flops(ladder, forwards, are_cached(ladder), examples)


def costs_of(candidate: Candidate, shipped: tuple[int, ...], speeds: Speeds) -> RouteCosts:
    """Price a candidate; `shipped` are the parameters of the students that ship."""
    ladder, sizes = candidate.ladder, candidate.sizes
    flops = flops_of_route(ladder, [Forward.of(size) for size in sizes], speeds.examples)
    answers = answers_of(ladder, are_cached(ladder), AnswerCaches(speeds.examples))
    proposals = []
    for place, (stage, cost) in enumerate(zip(ladder.stages, flops, strict=True)):
        teachers = [sizes[t] for t in answers[place].teachers]
        training, size, cached = stage.training, sizes[place + 1], stage.signals.source == "cached"
        vocabulary = speeds.interface.vocabulary or 0
        beside = [] if cached else teachers
        speed = speeds.throughput.of(stage.name, size.width)
        examples = examples_trained(ladder, training, stage.objective.rationale, speeds.examples)
        estimated = estimate(training, examples, size, cost.total, speed, beside, vocabulary, precision_of(ladder, training))
        proposals.append(
            StageProposal(
                name=stage.name,
                parameters=size.parameters,
                asked=candidate.asked[place],
                initialisation=stage.student.initialisation,
                teachers=stage.teachers,
                signals=stage.signals.kind if cached else "live",
                ships=candidate.asked[place] in shipped,
                steps=training.steps,
                tokens=estimated.tokens,
                flops=cost.total,
                seconds=cost.student / speed + _answering(cost.answers, teachers, speed, speeds.throughput),
                memory_bytes=max(estimated.memory_bytes, *(FP32_BYTES * t.parameters for t in teachers), 0.0),
            )
        )
    seconds = sum(proposal.seconds for proposal in proposals)
    return RouteCosts(
        stages=tuple(proposals),
        flops=sum(cost.total for cost in flops),
        seconds=seconds,
        price=with_extras(seconds, ladder.economics),
        memory_bytes=max(proposal.memory_bytes for proposal in proposals),
        disk_bytes=cache_bytes(ladder, are_cached(ladder), sizes[0].tokens, speeds.interface, speeds.examples),
    )


def shortened_to(candidate: Candidate, share: float) -> Candidate:
    """The candidate with a share of its steps, one at least."""
    stages = (lasting(stage, max(int(stage.training.steps * share), 1)) for stage in candidate.ladder.stages)
    return candidate._replace(ladder=with_stages(candidate.ladder, *stages))


def _answering(operations: float, teachers: list, speed: float, throughput: Throughput) -> float:
    """Seconds of the answers: at the root's own speed where it was measured or is wider."""
    if not operations:
        return 0.0
    width = max(teacher.width for teacher in teachers)
    return operations / (throughput.of(TEACHER, width) if throughput.peak else throughput.measured.get(TEACHER, speed))
