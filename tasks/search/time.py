"""Whether a search's budget is long enough for one trial and its confirmation."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from conf.home import Home
from tasks.data.prepare import prepare_data
from tasks.planning.budget import parse_budget, stages_seconds
from tasks.planning.costs.calibration import calibrate
from tasks.planning.matching import with_stages
from tasks.runtime.runs.run_registry import Context
from tasks.search.plan import SearchPlan


def require_time(plan: SearchPlan, base: Path, home: Home) -> None:
    """Refuse a budget that is too short for the defaults, one trial and the confirmation, by seconds that are measured once.

    Args:
        plan: The search.
        base: Folder that the ladder's relative paths count from.
        home: Where the calibration is remembered.

    Raises:
        UserError: It is too short.
    """
    ladder, text = plan.ladder, plan.settings.budget
    if text is None:
        return
    budget = parse_budget(text)
    context = Context(run="calibration", ladder=ladder.name, home=str(home.root), base=str(base))
    data = prepare_data(ladder, context)
    measured, _ = calibrate(ladder, data, context)
    above = [stage for stage in ladder.stages if stage.name in plan.above]
    used = [*above, *(stage for stage in ladder.stages if stage.name in plan.stages)]
    trial = stages_seconds([with_stages(ladder, *used)], data, measured)
    trial -= stages_seconds([with_stages(ladder, *above)], data, measured) if above else 0.0
    needed = (2 + 2 * plan.settings.seeds) * trial
    if needed > budget:
        allowed = f"at least {needed:.0f}s on this machine, for the defaults, one trial and {plan.settings.seeds} seeds of confirmation"
        raise UserError.about("search.budget", text, allowed, "Give more time, or fewer search.seeds.")
