"""`ladder plan --to`: propose routes to a size, and write the taken one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows.cli.printing import begin, show


class Request(NamedTuple):
    """The options of `ladder plan` that are about routes; empty: not given."""

    to: str
    ship: str
    tokens: str
    budget: str
    take: str
    teacher: str
    data: tuple[str, ...]
    out: str | None
    pilot: bool


def check_request(asked: Request, ladder: str | None, others: Mapping[str, Any]) -> None:
    """Refuse options that do not go together.

    Args:
        asked: Options about routes.
        ladder: Name or path; None: none.
        others: Options of the plan of a ladder as it stands.

    Raises:
        UserError: Naming the option.
    """
    from conf.errors import UserError

    needing = ("teacher", "data", "ship", "tokens", "budget", "take", "out")
    given = [name for name in needing if getattr(asked, name)]
    if given and not asked.to:
        value = getattr(asked, given[0])
        words = value if isinstance(value, str) else ", ".join(value)
        raise UserError.about(f"--{given[0]}", words, "with --to", "Name the size of the last student, such as --to 30m.")
    if bool(ladder) == bool(asked.teacher):
        raise UserError.about("LADDER", ladder or "none", "a ladder, or --teacher with --to; one of them", "Name one.")
    if asked.data and not asked.teacher:
        raise UserError.about("--data", ", ".join(asked.data), "with --teacher; a ladder names its data", "Leave it out.")
    for option, value in others.items():
        if asked.to and value:
            raise UserError.about(option, value, "without --to, which proposes routes", "Leave it out.")


def propose_routes(asked: Request, ladder: str | None, overrides: Sequence[str], as_json: bool) -> None:
    """Propose routes for the root of a ladder, or for a teacher and data, and print them.

    Args:
        asked: The options.
        ladder: Name or path; None: a teacher is given.
        overrides: Of the ladder, or of the draft for the teacher.
        as_json: Print one JSON document.

    Raises:
        UserError: An option is wrong, or no route can be taken.
    """
    import sys

    from conf.home import home, protect
    from conf.loading.load import load
    from flows.serving.environment import go_offline, prepare_environment

    loaded = load(ladder, overrides) if ladder else None
    protect(home())
    if loaded and not asked.pilot:
        go_offline()
    else:
        prepare_environment(home())
    begin(f"proposing routes for {loaded.ladder.name if loaded else asked.teacher}; loading PyTorch")
    from flows.cli.show.init import InitAnswers
    from flows.cli.show.proposal import proposal_text
    from tasks.planning.proposals.begin import COMMAND, propose_for_ladder, propose_for_teacher, write_ladder
    from tasks.planning.proposals.wanted import wanted
    from tasks.runtime.runs.run_registry import PLAN, Context
    from tasks.setup.init import write_draft

    request, out = wanted(asked.to, asked.ship, asked.tokens, asked.budget, asked.take), asked.out
    base = str(loaded.base) if loaded else os.getcwd()
    context = Context(run=PLAN, ladder=loaded.ladder.name if loaded else PLAN, home=str(home().root), base=base)
    taken: list[str] = []
    if loaded:
        proposed = propose_for_ladder(loaded.ladder, request, context)
        if out is not None:
            write_ladder(proposed, Path(base), out)
    else:
        answers = InitAnswers(asks=sys.stdin.isatty() and sys.stdout.isatty() and not as_json)
        proposed, drafted = propose_for_teacher(asked.teacher, asked.data, request, out, answers, context, overrides=overrides)
        if out is not None:
            write_draft(drafted, Path(out), context, COMMAND)
        taken = [*answers.taken, *drafted.draft.warnings]
    document = {**proposed.proposal.model_dump(mode="json"), "file": out, "forecast": None}
    if not as_json:
        show(document, as_json, lambda: proposal_text(proposed.proposal, out, taken))
    if asked.pilot:
        from flows.cli.choice.pilot import foretell_ladder
        from flows.cli.show.forecast import forecast_text

        forecast = foretell_ladder(proposed.ladder, Path(base))
        document["forecast"] = forecast.model_dump(mode="json")
        if not as_json:
            show(document, as_json, lambda: f"\n{forecast_text(forecast)}")
    if as_json:
        show(document, as_json, str)
