"""Models that teach a stage, and their schedule: members, checkpoints, turns.

Known from the settings alone, so that plans, budgets, proofs and trainings agree. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.teacher import TrainedTeacher
from models.losses.schedules import Turns
from tasks.training.identity import teachers_of

MEMBER_SEEDS = 1_000_003  # between the seeds of a rung's members: far from those of a proof's replicates, which are neighbours


class Voice(NamedTuple):
    """One model that teaches.

    Attributes:
        place: Among the models above the stage, 0 for the root.
        member: Which of its rung's members; 0: the rung's product.
        kept: Step of an early checkpoint of the root; None: the finished model.
    """

    place: int
    member: int = 0
    kept: int | None = None


class Teaching(NamedTuple):
    """The models that teach a stage, in the order of their turns, and these turns."""

    voices: tuple[Voice, ...]
    turns: Turns

    @property
    def has_members(self) -> bool:
        """Whether several models together are one teacher."""
        return any(size > 1 for size in self.turns.sizes)

    @property
    def by_root_alone(self) -> bool:
        """Whether no student teaches: the root does, finished or at its early checkpoints."""
        return {voice.place for voice in self.voices} == {0}

    def identity(self) -> dict[str, Any]:
        """The parts of a stage's identity that the hashes of its teachers do not show; none for single models that teach throughout."""
        found: dict[str, Any] = {}
        if len(self.turns.sizes) > 1 and self.turns.shares:
            found["turns"] = list(self.turns.shares)
        if self.has_members:
            found["members"] = list(self.turns.sizes)
        if kept := [voice.kept for voice in self.voices if voice.kept is not None]:
            found["kept"] = kept
        return found


def teaching_of(stage: Stage, members: Sequence[int], kept: Sequence[int] = (), chosen: int | None = None) -> Teaching:
    """The teaching of a stage.

    Args:
        stage: Its `teachers` and the hand-over in its objective choose.
        members: Models of each rung above it, the root first, which is one.
        kept: Steps of the root's early checkpoints.
        chosen: Place of the one that teaches (teachers best); None: as `teachers` says, of best all that may.
    """
    places = teachers_of(stage, range(len(members))) if chosen is None else (chosen,)
    teachers = [tuple(Voice(place, member) for member in range(members[place])) for place in places]
    if stage.teachers == ("checkpoints",):
        teachers = [*((Voice(0, kept=step),) for step in kept), *teachers]
    shares = (stage.objective.handover or (1.0,) * len(teachers)) if stage.hands_over else ()
    turns = Turns(tuple(map(len, teachers)), shares)
    return Teaching(tuple(voice for voices in teachers for voice in voices), turns)


def planned_teaching(ladder: Ladder, place: int, chosen: int | None = None) -> Teaching:
    """The teaching of a ladder's stage, 0 for the first, as its settings plan it; for `chosen` see `teaching_of`."""
    members = (1, *(stage.members for stage in ladder.stages[:place]))
    return teaching_of(ladder.stages[place], members, kept_steps(ladder), chosen)


def trial_steps(stage: Stage) -> int:
    """Steps of each trial that chooses a stage's teacher."""
    return max(round(stage.bake_off * stage.training.steps), 1)


def has_trials(stage: Stage, place: int) -> bool:
    """Whether trials choose the teacher of a ladder's stage, 0 for the first, which has no choice."""
    return stage.teachers == ("best",) and place > 0


def kept_steps(ladder: Ladder) -> tuple[int, ...]:
    """Steps of the root's training after which its weights are kept; none where it is not trained here."""
    teacher = ladder.teacher
    if not isinstance(teacher, TrainedTeacher):
        return ()
    return tuple(max(round(share * teacher.training.steps), 1) for share in teacher.keep)


def member_seed(seed: int, member: int) -> int:
    """Seed of a rung's member; that of member 0 is the stage's own."""
    return (seed + member * MEMBER_SEEDS) % 2**31


def member_name(stage: str, member: int) -> str:
    """Name of a rung's member: that of the stage, or `NAME.2` and so on, which no stage can have."""
    return stage if member == 0 else f"{stage}.{member + 1}"


def member_stage(ladder: Ladder, stage: Stage, member: int) -> Stage:
    """The stage that makes a member: the same with another seed, which no gate judges."""
    if member == 0:
        return stage
    return stage.model_copy(update={"name": member_name(stage.name, member), "seed": member_seed(ladder.stage_seed(stage), member)})
