"""A ladder within a budget of wall-clock time: fewer steps and held-out examples, by a calibration that is measured here, once.

What one step of each student costs, and one forward pass of each teacher, is measured in a few real steps on the ladder's own data and
remembered under the home, so that the same budget gives the same steps, and a second run finds the first one's stages.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import Loaded
from conf.schema.ladder import Ladder, Shape, Stage
from conf.schema.training import Training
from models.base.device import precision_of
from models.data.corpus import Corpus
from tasks.data.prepare import prepare_data
from tasks.records.run import TEACHER, DataRecord
from tasks.runtime.logs import log
from tasks.runtime.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.fingerprint import fingerprint
from tasks.teachers.teacher import prepare_teacher
from tasks.training.identity import teachers_of
from tasks.training.signal_policy import chosen_signals, examples_of

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WARM, TIMED = 2, 3  # steps before and in a measurement
START_SECONDS, STAGE_SECONDS = 20.0, 3.0  # of a run and of each of its models, beside training and evaluation
LEAST_STEPS, LEAST_EXAMPLES = 10, 32
KEPT = 0.8  # share of the budget that is planned with: a machine is not equally fast all the time
PRUNE_PASSES = 3.0  # what judging the teacher's parts takes, in its forward passes: once whole, once narrowed, with the notes kept of both


@dataclass(frozen=True)
class Pace:
    """Seconds of one model: a training step without its teacher, and its forward pass over as many examples."""

    step: float
    forward: float


@dataclass(frozen=True)
class Budgeted:
    """What makes a ladder fit: overrides, and in words why."""

    overrides: tuple[str, ...]
    words: str


def parse_budget(text: str) -> float:
    """Seconds of a budget such as `5m`, `90s` or `2h`.

    Raises:
        UserError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if match is None or int(match[1]) == 0:
        raise UserError.about("--budget", text, "a whole number with s, m, h or d, such as 5m", "For instance --budget 30m.")
    return float(match[1]) * UNITS[match[2]]


def fit_budget(loaded: Loaded, text: str, home: Home, trained: Sequence[Ladder] = ()) -> Budgeted:
    """Overrides that make a ladder end within a budget; none where it does so anyway.

    Args:
        loaded: The ladder.
        text: The budget.
        home: Where its calibration is remembered.
        trained: What is trained in place of the ladder itself: of a proof, all arms with all seeds, with students of the ladder's names.

    Raises:
        UserError: The budget is no time, or too short for anything.
    """
    ladder, budget, began = loaded.ladder, parse_budget(text), time.monotonic()
    context = Context(run="calibration", ladder=ladder.name, home=str(home.root), base=str(loaded.base))
    data = prepare_data(ladder, context)
    paces, remembered = _calibration(ladder, data, context)
    took = time.monotonic() - began
    times = sum(_stages_seconds(each, data, paces, 1.0) for each in trained) / _stages_seconds(ladder, data, paces, 1.0) if trained else 1.0

    def seconds(share: float) -> float:
        return _seconds(ladder, data, paces, share, times)  # the calibration is apart, or a second run would have other steps

    if seconds(1.0) <= KEPT * budget:
        words = f"{text}: the whole ladder fits, about {seconds(1.0):.0f} s; nothing was shortened"
        return Budgeted((), words)
    least, most = 0.0, 1.0
    if seconds(least) > budget:
        remedy = "Give more time, or name fewer stages."
        raise UserError.about("--budget", text, f"at least {seconds(least):.0f}s for {ladder.name} on this machine", remedy)
    for _ in range(40):
        share = (least + most) / 2
        least, most = (share, most) if seconds(share) <= KEPT * budget else (least, share)
    how = "a calibration remembered from before" if remembered else f"a calibration of {took:.0f} s"
    words = f"{text}: steps and held-out examples x {least:.3f}, by {how}; about {seconds(least):.0f} s"
    return Budgeted(_overrides(ladder, least), words)


def _overrides(ladder: Ladder, share: float) -> tuple[str, ...]:
    steps = [f"stages.{stage.name}.training.steps={scaled(stage.training, share)}" for stage in ladder.stages]
    if ladder.teacher.source == "train":
        steps.insert(0, f"teacher.training.steps={scaled(ladder.teacher.training, share)}")
    return (*steps, f"evaluation.examples={_examples(ladder, share)}")


def scaled(training: Training, share: float) -> int:
    """Steps of a shortened training."""
    return max(min(LEAST_STEPS, training.steps), round(training.steps * share))


def _examples(ladder: Ladder, share: float) -> int:
    return max(min(LEAST_EXAMPLES, ladder.evaluation.examples), round(ladder.evaluation.examples * share))


def _seconds(ladder: Ladder, data: DataRecord, paces: dict[str, Pace], share: float, times: float = 1.0) -> float:
    """How long a run takes with that share of its steps: training, teachers' forward passes, evaluation, the rest."""
    total = START_SECONDS + STAGE_SECONDS
    if ladder.teacher.source == "train":
        total += scaled(ladder.teacher.training, share) * paces[TEACHER].step
    batch = ladder.stages[0].training.batch_size
    examples = _examples(ladder, share)
    total += examples / batch * paces[TEACHER].forward
    return total + times * _stages_seconds(ladder, data, paces, share)


def _stages_seconds(ladder: Ladder, data: DataRecord, paces: dict[str, Pace], share: float) -> float:
    total, above, examples, names = STAGE_SECONDS * len(ladder.stages), TEACHER, _examples(ladder, share), [TEACHER]
    for stage in ladder.stages:
        steps, batch = scaled(stage.training, share), stage.training.batch_size
        asked = _asked(ladder, stage, steps, data)
        total += steps * paces[stage.name].step + asked * sum(paces[teacher].forward for teacher in teachers_of(stage, names))
        total += examples / batch * (paces[stage.name].forward + paces[above].forward + paces[TEACHER].forward * (above != TEACHER))
        total += (2 + steps / stage.training.validate_every) * examples / 4 / batch * paces[stage.name].forward  # validations
        if stage.student.initialisation == "prune":
            total += PRUNE_PASSES * stage.student.samples / batch * paces[above].forward
        above = stage.name
        names.append(above)
    return total


def _asked(ladder: Ladder, stage: Stage, steps: int, data: DataRecord) -> float:
    """Forward passes of each teacher, in batches: one for each step; where its signals are kept, none after the first epoch."""
    info = data.corpus().info
    if chosen_signals(stage, ladder, info) is None:
        return steps
    return min(steps, examples_of(info) / stage.training.batch_size)


def _calibration(ladder: Ladder, data: DataRecord, context: Context) -> tuple[dict[str, Pace], bool]:
    """Paces of all models, and whether they were known."""
    place = context.paths.root / "calibration.json"
    mark = fingerprint(_circumstances(ladder, data))
    try:
        known = json.loads(place.read_text())
    except (OSError, ValueError):
        known = {}
    if mark in known:
        return {name: Pace(**pace) for name, pace in known[mark].items()}, True
    log.info("budget: measuring a few steps of each model")
    paces = _measure(ladder, data, context)
    known[mark] = {name: asdict(pace) for name, pace in paces.items()}
    aside = place.with_suffix(".writing")
    aside.write_text(json.dumps(known, indent=1))
    aside.replace(place)
    return paces, False


def _circumstances(ladder: Ladder, data: DataRecord) -> dict[str, Any]:
    """What the pace of each model depends on."""
    from importlib.metadata import version

    from tasks.runtime.environment import processor

    stages = [[stage.name, stage.student.model_dump(mode="json"), _speed(ladder, stage.training)] for stage in ladder.stages]
    teacher = ladder.teacher.model_dump(mode="json", exclude={"training": True})
    own = _speed(ladder, ladder.teacher.training) if ladder.teacher.source == "train" else None
    machine = [processor(), version("torch"), ladder.compute.threads, ladder.compute.device]
    return {"stages": stages, "teacher": teacher, "training": own, "data": data.content_hash, "machine": machine}


def _speed(ladder: Ladder, training: Training) -> list[Any]:
    return [training.batch_size, training.accumulation, training.recompute, precision_of(ladder, training)]


def _measure(ladder: Ladder, data: DataRecord, context: Context) -> dict[str, Pace]:
    from models.architectures.checkpoint import load_model
    from models.architectures.shapes import config_for
    from models.base.device import use_threads
    from models.students.initialise import random_model
    from models.students.vocabulary import reduce_corpus, student_vocabulary

    use_threads(ladder)
    whole, first = data.corpus(), ladder.stages[0].training

    def random(shape: Shape, corpus: Corpus) -> Any:
        return random_model(config_for(shape, corpus.interface), ladder.workload, 0)

    if ladder.teacher.source == "train":
        paces = {TEACHER: _pace(ladder, whole, random(ladder.teacher.shape, whole), ladder.teacher.training)}
    else:
        imported = prepare_teacher(StageInputs(ladder, data, context))
        paces = {TEACHER: _pace(ladder, whole, load_model(Path(imported.folder), ladder.workload), first, trains=False)}
    for stage in ladder.stages:
        corpus = reduce_corpus(whole, student_vocabulary(stage.student.vocabulary, whole))
        paces[stage.name] = _pace(ladder, corpus, random(stage.student.shape, corpus), stage.training)
    return paces


def _pace(ladder: Ladder, corpus: Corpus, model: Any, training: Training, trains: bool = True) -> Pace:
    """Time a few steps on the ladder's own batches, and forward passes without gradient."""
    import torch

    from models.base.device import resolve_device
    from models.data.batches import TrainingBatches
    from models.training.loop import Plan, Step, train

    device, precision = resolve_device(ladder.compute.device), precision_of(ladder, training)
    batches, moments = TrainingBatches(corpus, training.batch_size, 0), list[float]()

    def on_step(step: Step) -> None:
        moments.append(time.perf_counter())

    if trains:
        few = training.model_copy(update={"steps": WARM + TIMED, "patience": None})
        train(model, batches, Plan(few, None, 0, corpus.interface.output_ids, device, precision), on_step=on_step)
    step = (moments[-1] - moments[WARM - 1]) / TIMED if trains else 0.0
    model.to(device).eval()
    batch = batches.at(0).part(0, training.accumulation).to(torch.device(device))
    half = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")

    def forward() -> float:
        began = time.perf_counter()
        model(**batch.inputs).logits[..., 0].sum().item()  # waits for a GPU
        return time.perf_counter() - began

    with torch.no_grad(), half:
        forward()
        return Pace(step, min(forward() for _ in range(TIMED - 1)) * training.accumulation)
