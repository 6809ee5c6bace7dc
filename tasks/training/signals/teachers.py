"""The teachers of a training as sources of signals."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.alignment.teacher import AlignedTeacher
from models.architectures.token_answers import TokenAnswers
from models.base.interface import Interface
from models.base.processes import process_rank
from models.base.sharding import shard
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.generation.answer_file import AnswerFile
from models.generation.endpoint import EndpointClient
from models.losses.features import Features
from models.signals.sources import SignalSource, live, uniform
from models.training.compiled import compile_layers
from models.training.loop import accelerator_for
from models.training.served import ServedTeacher
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context
from tasks.training.signals.signal_cache import CachedSignals, signals_for
from tasks.training.signals.signal_policy import outputs_of
from tasks.training.work import Work


def needs_teacher(work: Work) -> bool:
    """Whether the loss uses a teacher: not where alpha is 0 throughout and there is no feature loss."""
    objective = work.objective
    return objective is not None and bool(work.teachers) and bool(objective.alpha.start or objective.alpha.end or objective.features)


def frozen_dtype(device: str, precision: str) -> torch.dtype:
    """A frozen teacher on a GPU needs no fp32 copy of its weights when it computes in bf16."""
    return torch.bfloat16 if device == "cuda" and precision == "bf16" else torch.float32


def spread_teacher(teacher: nn.Module, device: str, precision: str) -> nn.Module:
    """A teacher spread over all processes, on their devices; one whose calls differ in number from process to process stays whole."""
    place = accelerator_for(device, precision).device  # processes know one another from here on
    return teacher.to(place) if isinstance(teacher, AlignedTeacher | TokenAnswers) else shard(teacher, place, frozen=True)


def feature_losses(work: Work, model: nn.Module, above: dict[str, nn.Module]) -> Features | None:
    """The feature losses against the one teacher that there is then."""
    if work.objective is None or not work.objective.features:
        return None
    return Features(work.objective.features, model, above[work.teachers[0].folder], work.seed)


def live_signals(work: Work, above: dict[str, nn.Module], interface: Interface, precision: str, answers: Path) -> list[SignalSource] | None:
    """Live signals of the teachers; the uniform distribution where alpha smooths the labels without a teacher; None: labels alone.

    What an endpoint answers is kept in the folder `answers`.
    """
    objective = work.objective
    if objective is not None and not work.teachers and (objective.alpha.start or objective.alpha.end):
        return [uniform(outputs_of(interface))]
    if objective is None or not needs_teacher(work):
        return None
    if work.served is not None and work.served.endpoint is not None:
        client = EndpointClient(work.served.endpoint, "signals.endpoint", lambda line: log.warning("%s: %s", work.name, line))
        above.clear()  # its memory is the student's
        return [ServedTeacher(client, work.served.k, outputs_of(interface), AnswerFile(answers, process_rank()))]
    sources = [live(above[t.folder], interface.output_ids, precision, objective.alignment) for t in work.teachers]
    for teacher in {above[t.folder] for t in work.teachers} if work.training.compile else ():  # not before `live` has looked at it
        if not isinstance(teacher, TokenAnswers):
            compile_layers(teacher)
    return sources


def log_usage(name: str, teacher: ServedTeacher) -> None:
    """Log requests, tokens and price of an endpoint's answers, and close its client."""
    usage, endpoint = teacher.client.usage, teacher.client.endpoint
    teacher.close()
    price = f", a price of {usage.price(endpoint):.4g}" if endpoint.price_in or endpoint.price_out else ""
    log.info("%s: %s answered %d requests, %d tokens%s", name, endpoint.model, usage.requests, usage.read + usage.written, price)


def cached_signals(
    work: Work,
    above: dict[str, nn.Module],
    corpus: Corpus,
    batches: TrainingBatches,
    device: str,
    precision: str,
    context: Context,
    together: Path,
) -> tuple[CachedSignals, ...]:
    """A cache of each teacher's answers, with all that the training will ask; none where they answer live."""
    wanted = work.signals
    if wanted is None:
        return ()
    spans = zip(work.teachers, work.turns.spans(work.training.steps), strict=True) if work.turns else ()
    given = (corpus, batches, device, precision, context, together)
    return tuple(signals_for(work, wanted, t, above[t.folder], *given, span) for t, span in spans)
