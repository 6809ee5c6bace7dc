"""Measures seconds of training steps and forward passes, once for each machine."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conf.atomic import write_atomic
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import weight_of_rationales
from conf.schema.stage.stage import Stage
from conf.schema.stage.training import Training
from conf.schema.teacher import AnswersTeacher
from models.base.device import precision_of
from models.base.files import read_json
from models.data.corpus import Corpus
from tasks.records.run import TEACHER, DataRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.fingerprint import fingerprint
from tasks.teachers.teacher import prepare_teacher
from tasks.teachers.teacher_source import resolve_checkpoint
from tasks.training.identity import known_settings

FORMAT = 2  # of a calibration: forward passes by the example
WARM, TIMED = 2, 3  # steps before and in a measurement
FILE = "calibration.json"  # under the home


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of one model.

    Attributes:
        step: Of a training step, without its teachers.
        forward: Of its forward pass over one example.
        used: The same with its head cut to the ids that the data use.
        write: Of writing one text, where the model writes its own.
    """

    step: float
    forward: float
    used: float
    write: float = 0.0


def calibrate(ladder: Ladder, data: DataRecord, context: Context) -> tuple[dict[str, StepSeconds], bool]:
    """Seconds of all models by name, and whether they were measured before.

    One process measures at a time: two would slow each other down, and lose each other's entries.
    """
    place, key = context.paths.root / FILE, fingerprint(_circumstances(ladder, data))
    with store_of(context).lock(fingerprint({"file": FILE})):
        try:
            stored = read_json(place)
        except (OSError, ValueError):
            stored = {}
        if key in stored:
            return {name: StepSeconds(**seconds) for name, seconds in stored[key].items()}, True
        log.info("budget: measuring a few steps of each model")
        measured = _measure(ladder, data, context)
        stored[key] = {name: asdict(seconds) for name, seconds in measured.items()}
        write_atomic(place, json.dumps(stored, indent=1))
        return measured, False


def _circumstances(ladder: Ladder, data: DataRecord) -> dict[str, Any]:
    """The settings and the machine that a measurement holds for."""
    from importlib.metadata import version

    from tasks.runtime.environment import processor

    stages = [
        [stage.name, stage.student.model_dump(mode="json"), _speed(ladder, stage.training, stage.objective.rationale), *_writing(stage)]
        for stage in ladder.stages
    ]
    teacher = ladder.teacher.model_dump(mode="json", exclude={"training", "rationale"})
    own = None
    if not isinstance(ladder.teacher, AnswersTeacher) and ladder.teacher.training is not None:
        own = _speed(ladder, ladder.teacher.training, ladder.teacher.rationale)
    machine = [processor(), version("torch"), ladder.compute.threads, ladder.compute.device]
    return {"format": FORMAT, "stages": stages, "teacher": teacher, "training": own, "data": data.content_hash, "machine": machine}


def _writing(stage: Stage) -> list[Any]:
    """The settings of text that the student writes; none where it does not."""
    return [known_settings(stage.signals)] if stage.signals.on_policy else []


def _speed(ladder: Ladder, training: Training, rationale: float | None = None) -> list[Any]:
    own = [*([] if rationale is None else [rationale]), *(["compiled"] if training.compile else [])]
    return [training.batch_size, training.accumulation, training.recompute, precision_of(ladder, training), *own]


def _measure(ladder: Ladder, data: DataRecord, context: Context) -> dict[str, StepSeconds]:
    from models.alignment.load import fit_tokenizer
    from models.architectures.checkpoint import load_model
    from models.architectures.shapes import config_for
    from models.architectures.token_answers import TokenAnswers
    from models.base.device import use_threads
    from models.students.initialise import random_model, student_config
    from models.students.pretrained import load_to_train
    from models.students.vocabulary import reduce_corpus, resize_vocabulary, student_vocabulary

    use_threads(ladder)
    whole, first = data.corpus(), ladder.stages[0]
    cut = student_vocabulary("used", whole) if any(stage.student.vocabulary == "used" for stage in ladder.stages) else None

    def random(config: Any) -> Any:
        return random_model(config, ladder.workload, 0)

    def timed(model: Any, corpus: Corpus, training: Training, rationale: float | None, trains: bool = True) -> StepSeconds:
        explained = weight_of_rationales(rationale) > 0
        step = _step_seconds(ladder, corpus, model, training, explained) if trains else 0.0
        forward = used = _forward_seconds(ladder, corpus, model, training, explained)
        if cut is not None and corpus is whole:
            used = _forward_seconds(ladder, reduce_corpus(whole, cut), resize_vocabulary(model, cut), training, explained)
        return StepSeconds(step, forward, used)

    if ladder.teacher.source == "train":
        made, own = random(config_for(ladder.teacher.shape, whole.interface)), ladder.teacher
        measured = {TEACHER: timed(made, whole, own.training, own.rationale)}
    elif ladder.teacher.source == "checkpoint" and ladder.teacher.training is not None:
        source, info = resolve_checkpoint(ladder.teacher, context), whole.info
        made = load_to_train(source, whole.interface, info.label_names, ladder.seed, ladder.teacher.classes)
        measured = {TEACHER: timed(made.model, whole, ladder.teacher.training, ladder.teacher.rationale)}
    else:
        folder = Path(prepare_teacher(StageInputs(ladder, data, context)).folder)
        model = fit_tokenizer(load_model(folder, ladder.workload), folder, whole)
        if isinstance(model, TokenAnswers):  # they are looked up in a file, in no time beside a training step
            measured = {TEACHER: StepSeconds(0.0, 0.0, 0.0)}
        else:
            measured = {TEACHER: timed(model, whole, first.training, first.objective.rationale, trains=False)}
    for stage in ladder.stages:
        corpus = reduce_corpus(whole, cut if stage.student.vocabulary == "used" else None)
        model = random(student_config(stage.student, None, corpus.interface, f"{stage.name}.student"))
        measured[stage.name] = timed(model, corpus, stage.training, stage.objective.rationale)
        if stage.signals.on_policy:
            measured[stage.name] = replace(measured[stage.name], write=_writing_seconds(ladder, corpus, model, stage))
    return measured


def _step_seconds(ladder: Ladder, corpus: Corpus, model: Any, training: Training, rationales: bool) -> float:
    """Seconds of a training step on the ladder's own batches, from labels alone."""
    from models.base.device import resolve_device
    from models.data.batches import TrainingBatches
    from models.training.loop import Plan, Step, train

    device, precision = resolve_device(ladder.compute.device), precision_of(ladder, training)
    batches, moments = TrainingBatches(corpus, training.batch_size, 0, rationales=rationales), list[float]()

    def on_step(step: Step) -> None:
        moments.append(time.perf_counter())

    few = training.model_copy(update={"steps": WARM + TIMED, "patience": None})
    train(model, batches, Plan(few, None, 0, corpus.interface.output_ids, device, precision), on_step=on_step)
    return (moments[-1] - moments[WARM - 1]) / TIMED


def _writing_seconds(ladder: Ladder, corpus: Corpus, model: Any, stage: Stage) -> float:
    """Seconds of writing one text, of a whole buffer at once."""
    from models.data.batches import TrainingBatches
    from models.training.on_policy import OnPolicyBatches

    training = stage.training
    batches = TrainingBatches(corpus, training.batch_size, 0)
    own = OnPolicyBatches(batches, model, stage.signals, training.steps, precision_of(ladder, training))
    first, began = next((step for step in range(training.steps) if own.steps.has(step)), None), time.perf_counter()
    if first is None:
        return 0.0
    own.at(first)
    return (time.perf_counter() - began) / (training.batch_size * len(own.steps.prompts(first)))


def _forward_seconds(ladder: Ladder, corpus: Corpus, model: Any, training: Training, rationales: bool) -> float:
    """Seconds of a forward pass without gradient over one example, in micro-batches of the training."""
    import torch

    from models.alignment.teacher import AlignedTeacher
    from models.base.device import resolve_device
    from models.data.batches import TrainingBatches

    device, precision = resolve_device(ladder.compute.device), precision_of(ladder, training)
    model.to(device).eval()
    whole = TrainingBatches(corpus, training.batch_size, 0, rationales=rationales).at(0)
    place = training.accumulation - 1 if rationales else 0  # the last one holds the rationales, which are longer
    batch = whole.part(place, training.accumulation).to(torch.device(device))

    def forward() -> float:
        began = time.perf_counter()
        answers = model.answers(batch).log_p if isinstance(model, AlignedTeacher) else model(**batch.arguments).logits
        answers[..., 0].sum().item()  # waits for a GPU
        return time.perf_counter() - began

    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        forward()
        return min(forward() for _ in range(TIMED - 1)) / len(batch.targets)
