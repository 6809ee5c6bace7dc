"""`ladder plan --to`: propose routes to a size, and write the taken one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flows.cli.printing import begin, show


def propose_routes(
    ladder: str | None,
    overrides: Sequence[str],
    teacher: str,
    data: Sequence[str],
    asked: tuple[str, ...],
    out: str | None,
    pilot: bool,
    as_json: bool,
) -> None:
    """Propose routes for the root of a ladder, or for a teacher and data, and print them.

    Args:
        ladder: Name or path; None: a teacher is given.
        overrides: Of the ladder.
        teacher: Path, id or package; empty: a ladder is given.
        data: Of the teacher.
        asked: The options `--to`, `--ship`, `--tokens`, `--budget` and `--take`.
        out: File to write; None: none.
        pilot: Train short schedules of the taken route, and foretell it.
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
    if loaded and not pilot:
        go_offline()
    else:
        prepare_environment(home())
    begin(f"proposing routes for {loaded.ladder.name if loaded else teacher}; loading PyTorch")
    from flows.cli.show.init import InitAnswers
    from flows.cli.show.proposal import proposal_text
    from tasks.planning.proposals.begin import COMMAND, propose_for_ladder, propose_for_teacher, write_ladder
    from tasks.planning.proposals.wanted import wanted
    from tasks.runtime.runs.run_registry import PLAN, Context
    from tasks.setup.init import write_draft

    request = wanted(*asked)
    base = str(loaded.base) if loaded else os.getcwd()
    context = Context(run=PLAN, ladder=loaded.ladder.name if loaded else PLAN, home=str(home().root), base=base)
    taken: list[str] = []
    if loaded:
        proposed = propose_for_ladder(loaded.ladder, request, context)
        if out is not None:
            write_ladder(proposed, Path(base), out)
    else:
        answers = InitAnswers(asks=sys.stdin.isatty() and sys.stdout.isatty() and not as_json)
        proposed, drafted = propose_for_teacher(teacher, data, request, out, answers, context)
        if out is not None:
            write_draft(drafted, Path(out), context, COMMAND)
        taken = [*answers.taken, *drafted.draft.warnings]
    document = {**proposed.proposal.model_dump(mode="json"), "file": out, "forecast": None}
    if not as_json:
        show(document, as_json, lambda: proposal_text(proposed.proposal, out, taken))
    if pilot:
        from flows.cli.choice.pilot import foretell_ladder
        from flows.cli.show.forecast import forecast_text

        forecast = foretell_ladder(proposed.ladder, Path(base))
        document["forecast"] = forecast.model_dump(mode="json")
        if not as_json:
            show(document, as_json, lambda: f"\n{forecast_text(forecast)}")
    if as_json:
        show(document, as_json, str)
