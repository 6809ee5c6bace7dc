"""Floating-point operations of a stage: one law for trainings, plans and proofs.

A stage costs three forward passes of the student over every example that it trains on (one forward, two for the gradient) and one of
each teacher over every example that this teacher answers. A live teacher answers in the steps in which the objective asks it, one that
hands over in its own alone; members of a rung are trainings, and teachers, of their own, and so are the trials that choose a teacher. The
stored answers of one are computed once for each distinct example, whichever stages and steps need them. Importance for pruning,
evaluation and the few examples that check a cache are not counted. A text that the student writes costs it one more forward pass, and
counts as long as an example of the data. All counts are whole numbers, so that every caller has the same.
No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.stage import Stage
from conf.schema.stage.training import Training
from models.base.device import precision_of
from models.data.corpus import RATIONALES
from models.losses.schedules import Turns, WritingSteps, steps_asked
from tasks.training.costs.examples import AnswerCaches, TrainingExamples
from tasks.training.identity import identity_of_signals
from tasks.training.teaching import Teaching, has_trials, member_seed, planned_teaching, trial_steps

if TYPE_CHECKING:
    from models.architectures.shapes import Size
    from tasks.records.run import StageRecord

STUDENT_PASSES = 3


class Forward(NamedTuple):
    """Operations of a model's forward pass over one example; `used`: with its head cut to the ids that the data use."""

    whole: int
    used: int

    @classmethod
    def of(cls, size: Size | None) -> Forward:
        """Those of a counted model; none of one whose size is unknown."""
        if size is None:
            return cls(0, 0)
        return cls(int(size.forward_flops), int(size.forward_flops if size.used_flops is None else size.used_flops))


class Answers(NamedTuple):
    """Examples that the teachers of a stage answer, in the order of its teaching, for each of its members in turn.

    Attributes:
        teachers: Their places among the models above the stage, 0 for the root.
        needed: Examples of each, as if no answer were stored before.
        new: Examples of each whose answer no earlier stage has stored.
        trial_steps: Steps that the student itself is trained in all trials together that choose its teacher.
        written: Texts that the student writes, with all its members and in all trials.
    """

    teachers: tuple[int, ...]
    needed: tuple[int, ...]
    new: tuple[int, ...]
    trial_steps: int = 0
    written: int = 0


class StageFlops(NamedTuple):
    """Operations of a stage.

    Attributes:
        student: Of the student.
        answers: Of the teachers' answers that it adds to those that are stored.
        needed: Of all answers that it learns from, as if none were stored before.
    """

    student: int
    answers: int
    needed: int

    @property
    def total(self) -> float:
        """As a record holds it."""
        return float(self.student + self.answers)


def training_flops(forward: int, examples: int, answers: Iterable[tuple[int, int]] = (), written: int = 0) -> StageFlops:
    """Operations of one training.

    Args:
        forward: Of the student, for one example.
        examples: That it trains on, repeated ones as often as they come.
        answers: Forward operations of each teacher for one example, and how many examples it answers.
        written: Examples that the student writes itself.
    """
    spent = sum(teacher * count for teacher, count in answers)
    return StageFlops(forward * (STUDENT_PASSES * examples + written), spent, spent)


def written_examples(signals: Signals, training: Training, done: int) -> int:
    """Texts that a student writes in the first `done` steps of its schedule."""
    return training.batch_size * WritingSteps.of(signals, training.steps).written(done)


def live_answers(objective: Objective, turns: Turns, seed: int, steps: int, done: int, batch_size: int) -> tuple[int, ...]:
    """Examples that each of several live models answers in the first `done` steps of a schedule of `steps`."""
    return tuple(batch_size * asked for asked in steps_asked(objective, turns, seed, steps, done))


def answers_of(
    ladder: Ladder,
    cached: Sequence[bool],
    caches: AnswerCaches,
    taken: Sequence[int] | None = None,
    names: Sequence[Any] | None = None,
    chosen: Sequence[int | None] = (),
) -> list[Answers]:
    """Examples that the teachers of every stage answer, the stages trained one after another, each with all its members.

    Args:
        ladder: The stages, with their seeds and schedules.
        cached: Whether each stage's teachers answer from a cache.
        caches: Answers stored before; added to.
        taken: Steps that each training took; None: those of its schedule. A cache holds the answers that the schedule asks for.
        names: Keys that separate the models of this ladder from those of others with the same caches, the root first; None: their places.
        chosen: Place of the teacher that trials chose for each stage (teachers best); none: the root, mostly the most expensive.
    """
    found = []
    for place, (stage, stored) in enumerate(zip(ladder.stages, cached, strict=True)):
        asked, steps, trials, written = list[tuple[int, int, int]](), stage.training.steps, 0, 0
        prices = _Asking(ladder, stage, caches.examples, caches if stored else None, names)
        teacher = None
        if has_trials(stage, place):
            short = trial_steps(stage)
            lasting = stage.training.model_copy(update={"steps": short})
            teacher = (chosen[place] if chosen else None) or 0
            for above in reversed(range(place + 1)):
                asked += prices.asked(planned_teaching(ladder, place, above), 0, lasting, short)
                trials += short
                written += written_examples(stage.signals, lasting, short)
        teaching = planned_teaching(ladder, place, teacher)
        done = steps if taken is None else taken[place]
        for member in range(stage.members):
            asked += prices.asked(teaching, member, stage.training, done)
            written += written_examples(stage.signals, stage.training, done)
        places, needed, new = zip(*asked, strict=True) if asked else ((), (), ())
        found.append(Answers(places, needed, new, trials, written))
    return found


class _Asking(NamedTuple):
    """A stage whose trainings ask their teachers; `caches`: of the answers, None where they are live."""

    ladder: Ladder
    stage: Stage
    examples: TrainingExamples
    caches: AnswerCaches | None
    names: Sequence[Any] | None

    def asked(self, teaching: Teaching, member: int, training: Training, done: int) -> list[tuple[int, int, int]]:
        """Of each model that teaches a training: its place, and the examples that it answers, all and new."""
        seed, batch, steps = member_seed(self.ladder.stage_seed(self.stage), member), training.batch_size, training.steps
        voices, turns = teaching
        if self.caches is None:
            live = live_answers(self.stage.objective, turns, seed, steps, done, batch)
            every = [rows + self._explained(rows) for rows in live]
            return [(voice.place, examples, examples) for voice, examples in zip(voices, every, strict=True)]
        found = []
        for voice, span in zip(voices, turns.spans(steps), strict=False):  # without teachers there is none
            name = voice.place if self.names is None else self.names[voice.place]
            key, rows = _cache_key(self.ladder, self.stage, voice._replace(place=name)), range(span.start * batch, span.stop * batch)
            needed, new = self.caches.add(key, seed, rows, training.pool)
            if self._explained(len(rows)):  # whose answers a training without rationales does not ask for
                own, added = self.caches.add((key, RATIONALES), seed, rows, training.pool)
                needed, new = needed + self._explained(own), new + self._explained(added)
            found.append((voice.place, needed, new))
        return found

    def _explained(self, rows: int) -> int:
        return self.examples.explained(self.ladder, self.stage.objective.rationale, rows)


def ladder_flops(
    ladder: Ladder,
    forwards: Sequence[Forward],
    cached: Sequence[bool],
    examples: TrainingExamples,
    taken: Sequence[int] | None = None,
    caches: AnswerCaches | None = None,
    names: Sequence[Any] | None = None,
    chosen: Sequence[int | None] = (),
) -> list[StageFlops]:
    """Operations of every stage, all its members together, as of a run with an empty store where no caches are given.

    For arguments see `answers_of`.

    Args:
        ladder: The stages.
        forwards: Of the root and all students.
        cached: Whether each stage's teachers answer from a cache.
        examples: Of the training data.
        taken: Steps that each training took; None: those of its schedule.
        caches: Answers that trainings before these have stored; added to.
        names: Keys of the models in these caches.
        chosen: Of each stage, see `answers_of`.
    """
    costs = []
    answered = answers_of(ladder, cached, caches or AnswerCaches(examples), taken, names, chosen)
    for place, (stage, answers) in enumerate(zip(ladder.stages, answered, strict=True)):
        steps = stage.training.steps if taken is None else taken[place]
        prices = [forwards[t].used if stage.student.vocabulary == "used" else forwards[t].whole for t in answers.teachers]
        needed = sum(price * count for price, count in zip(prices, answers.needed, strict=True))
        rows = (steps * stage.members + answers.trial_steps) * stage.training.batch_size
        trained = rows + examples.explained(ladder, stage.objective.rationale, rows)
        spent = training_flops(forwards[place + 1].whole, trained, zip(prices, answers.new, strict=True), answers.written)
        costs.append(spent._replace(needed=needed))
    return costs


def seconds_of(student: StageRecord, cost: StageFlops) -> float:
    """Seconds of a finished training and of the stored answers that it adds by its cost, whoever has computed them."""
    answers = student.signal_seconds if student.all_signal_seconds is None else student.all_signal_seconds
    return student.seconds + (answers * cost.answers / cost.needed if cost.needed else 0.0)


def _cache_key(ladder: Ladder, stage: Stage, teacher: Any) -> Any:
    """Key of the stored answers of one teacher, on the same data."""
    return teacher, str(identity_of_signals(stage.signals)), stage.student.vocabulary, precision_of(ladder, stage.training)
