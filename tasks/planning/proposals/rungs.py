"""The students that routes are made of: settled, checked and counted once."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import NamedTuple

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Student, size_name
from models.architectures.shapes import Size
from models.data.corpus import Corpus
from tasks.planning.matching import lasting
from tasks.planning.preflight import check_ladder
from tasks.planning.proposals.wanted import Wanted, check_below, rungs_between
from tasks.planning.students import settle_students
from tasks.runtime.runs.run_registry import Context

SAME = 0.03  # relative difference of parameters up to which two students are of one size
WIDEST = 3.5  # parameters of a teacher over its student's, in a chain that is proposed
TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556


class StudentRung(NamedTuple):
    """A student: its stage, taught by its parent, with the student in full; its size; and the number of parameters that was asked for."""

    stage: Stage
    size: Size
    parameters: int


class Students(NamedTuple):
    """The root and the students of all routes, the largest first."""

    root: Size
    rungs: tuple[StudentRung, ...]

    def of(self, parameters: int) -> StudentRung:
        """The student that was asked for by this number of parameters."""
        return next(rung for rung in self.rungs if rung.parameters == parameters)


def settle_rungs(ladder: Ladder, wanted: Wanted, context: Context, corpus: Corpus | None, tokens: int | None) -> Students:
    """Make a stage for every size that ships, and for those between them in a chain.

    Args:
        ladder: Its stages give the students of sizes that they have, and the settings of others, which the nearest in size lends.
        wanted: The sizes.
        context: Home and base.
        corpus: The data; None: not prepared.
        tokens: Positions that each student reads; None: those of its stage; 0: 20 for each parameter.

    Raises:
        UserError: The root's size is unknown, a student is larger than it, the architecture has no such size, or the ladder cannot run.
    """
    root, known = _counted(ladder, context, corpus)
    if root is None:
        path = getattr(ladder.teacher, "path", ladder.teacher.source)
        remedy = "Set teacher.shape, or choose a teacher that is on this machine."
        raise UserError.about("teacher.path", path, "a model whose size is known, for a choice of routes", remedy)
    check_below(wanted, root.parameters)
    sizes = rungs_between(root.parameters, wanted.ship, WIDEST)
    stages = [_stage(known, size) for size in sizes]
    _, counted = _counted(ladder.model_copy(update={"stages": tuple(stages)}), context, corpus)
    rungs = (StudentRung(_reading(stage, size, tokens), size, asked) for (stage, size), asked in zip(counted, sizes, strict=True))
    return Students(root, tuple(rungs))


def _counted(ladder: Ladder, context: Context, corpus: Corpus | None) -> tuple[Size | None, list[tuple[Stage, Size]]]:
    """The size of the root, and the settled stages with the sizes of their students."""
    settled = settle_students(ladder, context)
    root, sizes = check_ladder(settled, context, corpus)
    return root, list(zip(settled.stages, sizes, strict=True))


def _stage(known: Sequence[tuple[Stage, Size]], parameters: int) -> Stage:
    """The stage of a size: a known one, or the nearest with another student."""
    stage, size = min(known, key=lambda pair: abs(log(pair[1].parameters / parameters)))
    student, name = stage.student, stage.name
    if abs(size.parameters / parameters - 1) > SAME:
        name, begun = size_name(parameters), "prune" if student.initialisation == "prune" else "random"
        student = Student(parameters=parameters, initialisation=begun)
    return stage.model_copy(update={"name": name, "student": student, "teachers": ("parent",), "gate": Gate()})


def _reading(stage: Stage, size: Size, tokens: int | None) -> Stage:
    """The stage with as many steps as read so many positions; see `settle_rungs`."""
    if tokens is None:
        return stage
    positions = tokens or TOKENS_A_PARAMETER * size.parameters
    return lasting(stage, max(round(positions / (stage.training.batch_size * size.tokens)), 1))
