"""`ladder plan --pilot`: train short schedules, and foretell the whole ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conf.schema.ladder import Ladder
    from tasks.planning.proposals.forecast import LadderForecast


def foretell_ladder(ladder: Ladder, base: Path) -> LadderForecast:
    """Prepare the data and the root of a ladder, train its pilots and those of one jump, and foretell both.

    Raises:
        UserError: The ladder cannot run, or is too short for pilots.
    """
    from conf.home import home, require_space
    from conf.schema.workloads import refuse_unjudged
    from tasks.data.prepare import prepare_data
    from tasks.planning.proposals.forecast import check_length, foretell
    from tasks.planning.routes import routed
    from tasks.planning.students import settle_students
    from tasks.runtime.runs.run_registry import PLAN, Context
    from tasks.runtime.stage_inputs import StageInputs
    from tasks.teachers.teacher import prepare_teacher

    refuse_unjudged(ladder.workload, "--pilot", ladder.name, "a ladder")
    context = Context(run=PLAN, ladder=ladder.name, home=str(home().root), base=str(base))
    check_length(ladder)
    require_space(home())
    settled = settle_students(ladder, context)
    if settled.route not in ("as-written", "auto"):
        settled = routed(settled.route, settled)
    inputs = StageInputs(settled, prepare_data(settled, context), context)
    return foretell(settled, prepare_teacher(inputs), inputs)
