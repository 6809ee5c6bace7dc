"""Shortens a ladder to a wall-clock budget, by seconds that are measured once.

The same budget gives the same steps, and a second run finds the first one's stages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import Loaded
from conf.schema.data import rounds_of
from conf.schema.ladder import Ladder
from models.base.device import precision_of
from tasks.data.prepare import prepare_data
from tasks.planning.costs.calibration import StepSeconds, calibrate
from tasks.planning.matching import lasting, scaled, with_stages
from tasks.planning.routes import AGAIN
from tasks.records.format import duration
from tasks.records.run import TEACHER, DataRecord
from tasks.runtime.runs.run_registry import Context
from tasks.store.fingerprint import fingerprint
from tasks.training.costs.cost_model import Answers, answers_of
from tasks.training.costs.examples import AnswerCaches, training_examples
from tasks.training.identity import stage_identity
from tasks.training.signals.signal_policy import choose
from tasks.training.teaching import planned_teaching

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
START_SECONDS, STAGE_SECONDS = 20.0, 3.0  # of a run and of each of its models, beside training and evaluation
LEAST_EXAMPLES = 32
PLANNED_SHARE = 0.8  # of the budget: a machine is not equally fast all the time
PRUNE_PASSES = 3.0  # forward passes of the teacher that importance takes: once whole, once narrowed, with the notes kept of both


@dataclass(frozen=True)
class Budgeted:
    """The overrides that make a ladder fit, and the reason in words."""

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
        trained: Trained in place of the ladder itself: of a proof, all arms with all seeds, with students of the ladder's names.

    Raises:
        UserError: The budget is no time, or too short for anything.
    """
    ladder, budget, began = loaded.ladder, parse_budget(text), time.monotonic()
    context = Context(run="calibration", ladder=ladder.name, home=str(home.root), base=str(loaded.base))
    data = prepare_data(ladder, context)
    measured, remembered = calibrate(ladder, data, context)
    took = time.monotonic() - began
    whole = stages_seconds([ladder], data, measured)
    times = stages_seconds(trained, data, measured) / whole if trained else 1.0

    def seconds(share: float) -> float:
        return _seconds(ladder, data, measured, share, times)  # without the calibration, or a second run would have other steps

    uncounted = "" if ladder.data.generate is None else ", besides what data.generate takes to write its rows"
    if seconds(1.0) <= PLANNED_SHARE * budget:
        words = f"{text}: the whole ladder fits, about {seconds(1.0):.0f} s{uncounted}; nothing was shortened"
        return Budgeted((), words)
    least, most = 0.0, 1.0
    if seconds(least) > budget:
        remedy = "Give more time, or name fewer stages."
        raise UserError.about("--budget", text, f"at least {seconds(least):.0f}s for {ladder.name} on this machine", remedy)
    for _ in range(40):
        share = (least + most) / 2
        least, most = (share, most) if seconds(share) <= PLANNED_SHARE * budget else (least, share)
    how = "a calibration remembered from before" if remembered else f"a calibration of {duration(took)}"
    words = f"{text}: steps and held-out examples x {least:.3f}, by {how}; about {seconds(least):.0f} s{uncounted}"
    return Budgeted(_overrides(ladder, least), words)


def _overrides(ladder: Ladder, share: float) -> tuple[str, ...]:
    steps = [f"stages.{stage.name}.training.steps={scaled(stage.training, share)}" for stage in ladder.stages]
    if ladder.teacher.training is not None:
        steps.insert(0, f"teacher.training.steps={scaled(ladder.teacher.training, share)}")
    return (*steps, f"evaluation.examples={_examples(ladder, share)}")


def _examples(ladder: Ladder, share: float) -> int:
    return max(min(LEAST_EXAMPLES, ladder.evaluation.examples), round(ladder.evaluation.examples * share))


def _seconds(ladder: Ladder, data: DataRecord, measured: dict[str, StepSeconds], share: float, times: float = 1.0) -> float:
    """Seconds of a run with that share of its steps: training, rounds of `data.generate`, teachers' answers, evaluation, start."""
    examples, fitted = _examples(ladder, share), shortened(ladder, share)
    total = START_SECONDS + STAGE_SECONDS + examples * measured[TEACHER].forward
    if ladder.teacher.training is not None:
        total += scaled(ladder.teacher.training, share) * measured[TEACHER].step
    if (again := rounds_of(ladder.data) - 1) > 0:  # every round but the last trains the first student on rows of its own
        total += again * stages_seconds([with_stages(fitted, fitted.stages[0])], data, measured)
    return total + times * stages_seconds([fitted], data, measured)


def shortened(ladder: Ladder, share: float) -> Ladder:
    """The ladder with that share of its steps and held-out examples."""
    evaluation = ladder.evaluation.model_copy(update={"examples": _examples(ladder, share)})
    stages = (lasting(stage, scaled(stage.training, share)) for stage in ladder.stages)
    return with_stages(ladder, *stages).model_copy(update={"evaluation": evaluation})


def stages_seconds(ladders: Sequence[Ladder], data: DataRecord, measured: dict[str, StepSeconds]) -> float:
    """Seconds of all stages of ladders that share a store, in which an identical training and a stored answer are found again."""
    total, done = 0.0, set[str]()
    for ladder, stages in zip(ladders, answers_in_turn(ladders, data), strict=True):
        # A student that is made again is as fast as before.
        models = [measured.get(name) or measured[name.removesuffix(AGAIN)] for name in (TEACHER, *(stage.name for stage in ladder.stages))]
        for place, (identity, answers) in enumerate(stages):
            if identity not in done:
                total += _stage_seconds(ladder, place, models, answers)
            done.add(identity)
    return total


def answers_in_turn(ladders: Sequence[Ladder], data: DataRecord) -> list[list[tuple[str, Answers]]]:
    """Of every stage of every ladder, run one after another from an empty store: the key of its training, and its answers."""
    info = data.corpus().info
    chosen = [[choose(stage, ladder, info).cached for stage in ladder.stages] for ladder in ladders]
    caches, found = AnswerCaches(training_examples(data.corpus(), any(map(any, chosen)))), []
    for ladder, cached in zip(ladders, chosen, strict=True):
        models = [TEACHER]
        for place, (stage, stored) in enumerate(zip(ladder.stages, cached, strict=True)):
            precision, teaching = precision_of(ladder, stage.training), planned_teaching(ladder, place)
            teachers = tuple(f"{models[voice.place]}{voice.member or ''}" for voice in teaching.voices)
            key = stage_identity(
                ladder,
                stage,
                precision,
                data.content_hash,
                teachers,
                models[-1],
                stage.signals if stored else None,
                teaching.identity(),
            )
            models.append(fingerprint(key if stage.members == 1 else key | {"rung": stage.members}))
        found.append(list(zip(models[1:], answers_of(ladder, cached, caches, names=models), strict=True)))
    return found


def _stage_seconds(ladder: Ladder, place: int, models: Sequence[StepSeconds], answers: Answers) -> float:
    """Seconds of a stage: training, the teachers' answers, evaluation beside parent and root, validations, importance."""
    stage, examples = ladder.stages[place], ladder.evaluation.examples
    own, parent, root = models[place + 1], models[place], models[0]
    total = STAGE_SECONDS + stage.members * stage.training.steps * own.step + answers.written * own.write
    for teacher, count in zip(answers.teachers, answers.new, strict=True):
        total += count * (models[teacher].used if stage.student.vocabulary == "used" else models[teacher].forward)
    total += answers.trial_steps * own.step + (place + 1) * examples * own.forward * bool(answers.trial_steps)
    total += stage.members * examples * (own.forward + parent.forward + (root.forward if place else 0.0))
    total += stage.members * (2 + stage.training.steps / stage.training.validate_every) * examples / 4 * own.forward
    if stage.student.initialisation == "prune":
        total += stage.members * PRUNE_PASSES * stage.student.samples * parent.forward
    return total
