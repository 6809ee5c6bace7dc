"""Settings of a stage: its student, teachers, training and gate."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from conf.schema.base import NAME_PATTERN, Settings, setting
from conf.schema.stage.gate import Gate
from conf.schema.stage.objective import Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.student import Student
from conf.schema.stage.training import Training

Teachers = Literal["parent", "root", "ancestors", "rising", "checkpoints", "best", "none"]
STAGE_NAME = "1 to 64 letters, digits, - and _, the first a letter or a digit, as text (quote a number)"


class Stage(Settings):
    """A stage: a student, its teachers, its training, and the gate that it must pass."""

    name: str = setting(..., "Name of the stage", "name", identity=False, allowed=STAGE_NAME, pattern=NAME_PATTERN)
    notes: str = setting("", "Free text for the reader", "text", identity=False)
    student: Student = setting(..., "The model to train")
    teachers: tuple[Teachers, ...] = setting(
        ("parent",),
        "Who teaches: [parent], [root], [root, parent], ancestors: all models above, rising: these one after another, the smallest first, "
        "checkpoints: the root's early checkpoints (teacher.keep) and then the root, best: of all models above the one that "
        "teaches best in a short trial (bake_off), or none: labels alone, which alpha then smooths",
        "teachers",
        identity=False,  # the teachers' weights are in the identity, in order
        min_length=1,
    )
    bake_off: float = setting(
        0.1,
        "Share of the steps that each model above teaches in a trial, before the best of them teaches (teachers best)",
        "fraction",
        identity=False,  # the chosen teacher's weights are in the identity
        added=True,
        gt=0,
        le=1,
    )
    members: int = setting(
        1,
        "Students of this rung, trained with seeds of their own, which together teach the next by the mean of their probabilities; the "
        "first is the rung's product",
        "students",
        identity=False,  # the members' weights are in the identities of the stages that they teach
        added=True,
        ge=1,
        le=64,
    )
    objective: Objective = setting(Objective(), "Loss of the student's training")
    # Whether it changes numbers depends on the data; `tasks.training.identity.stage_identity` adds them then.
    signals: Signals = setting(Signals(), "Teacher's answers: live or cached", identity=False)
    training: Training = setting(..., "Steps, optimizer, validation; none in YAML: 1,000 steps of 32 at a learning rate of 1e-3")
    gate: Gate = setting(Gate(), "Thresholds that it must reach", identity=False)
    seed: int | None = setting(None, "Seed of this stage; none: the ladder's seed", "seed", ge=0, lt=2**31)

    @field_validator("teachers", mode="before")
    @classmethod
    def _teachers_are_a_choice(cls, value: Any) -> Any:
        listed = (value,) if isinstance(value, str) else value
        allowed = (("parent",), ("root",), ("root", "parent"), ("ancestors",), ("rising",), ("checkpoints",), ("best",), ("none",))
        if not isinstance(listed, list | tuple) or tuple(listed) not in allowed:
            raise ValueError(f"got {value!r}; allowed: {', '.join(map(_shown, allowed[:-1]))} or none. Choose one of them.")
        return listed

    @property
    def hands_over(self) -> bool:
        """Whether its teachers teach one after another."""
        return self.teachers in (("rising",), ("checkpoints",))


def _shown(choice: tuple[str, ...]) -> str:
    """A choice of teachers as it is written in YAML."""
    return f"[{', '.join(choice)}]" if {"root", "parent"} & set(choice) else choice[0]
