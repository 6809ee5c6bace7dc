"""`ladder run`, `rerun` and `plan`: compute a ladder, or estimate that."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.arguments import Budget, By, Fresh, Json, LadderName, Name, Note, OptionalLadder, Overrides, Route, RunName, Seed, StartAt
from flows.cli.printing import begin, show


def run(
    ladder: LadderName,
    overrides: Overrides = None,
    start_at: StartAt = None,
    fresh: Fresh = False,
    seed: Seed = None,
    budget: Budget = None,
    route: Route = None,
    name: Name = None,
    note: Note = None,
    by: By = None,
) -> None:
    """Distil a ladder: reuse finished stages, resume interrupted ones, compute the rest."""
    from flows.cli.launch import launch
    from tasks.lifecycle.request import RunRequest, naming

    named = naming(name, note, by)
    launch(RunRequest(ladder, _with_route(overrides, route), start_at, fresh, seed, budget or None, **named))


def rerun(
    run: RunName,
    overrides: Overrides = None,
    start_at: StartAt = None,
    fresh: Fresh = False,
    seed: Seed = None,
    name: Name = None,
    note: Note = None,
    by: By = None,
) -> None:
    """Repeat an earlier run with its settings and these; compute only the models that they change."""
    from flows.cli.launch import relaunch
    from tasks.lifecycle.request import naming

    relaunch(run, overrides or [], start_at, fresh, seed, naming(name, note, by))


def _with_route(overrides: list[str] | None, route: str | None) -> tuple[str, ...]:
    return (*(overrides or ()), *([f"route={route}"] if route is not None else []))


def plan(
    ladder: OptionalLadder = None,
    overrides: Overrides = None,
    start_at: StartAt = None,
    fresh: Fresh = False,
    route: Route = None,
    to: Annotated[str, typer.Option(metavar="SIZE", help="Propose routes to a student of this size, such as 30m.")] = "",
    teacher: Annotated[str, typer.Option(metavar="PATH|ID|package:NAME", help="With --to: the teacher, in place of a ladder.")] = "",
    data: Annotated[list[str] | None, typer.Option(metavar="PATH", help="With --teacher: the data; may be repeated.")] = None,
    ship: Annotated[str, typer.Option(metavar="SIZES", help="With --to: all sizes that ship or are distilled again: 300m,30m.")] = "",
    tokens: Annotated[str, typer.Option(metavar="N", help="With --to: tokens that each student reads, such as 2b.")] = "",
    budget: Annotated[str, typer.Option(metavar="TIME|MONEY", help="With --to: the most that a route may take: 8h, $50.")] = "",
    take: Annotated[str, typer.Option(metavar="ROUTE", help="With --to: the route to take; none: by the rule.")] = "",
    out: Annotated[str | None, typer.Option(metavar="FILE", help="With --to: write the taken route as a ladder.")] = None,
    pilot: Annotated[bool, typer.Option("--pilot", help="Train short schedules, and foretell quality and time of the whole ones.")] = False,
    as_json: Json = False,
) -> None:
    """Show the actions and the cost of a run, without doing it; with --to, routes to a size, priced."""
    from conf.home import home, protect
    from flows.cli.choice.propose import Request, check_request, propose_routes
    from flows.serving.environment import go_offline

    if teacher and ladder and "=" in ladder:  # without a ladder the first argument is an override
        ladder, overrides = None, [ladder, *(overrides or [])]
    asked = Request(to, ship, tokens, budget, take, teacher, tuple(data or ()), out, pilot)
    check_request(asked, ladder, {"--route": route, "--start-at": start_at, "--fresh": fresh})
    if to:
        propose_routes(asked, ladder, overrides or [], as_json)
        return
    from conf.loading.load import load

    assert ladder is not None
    loaded = load(ladder, _with_route(overrides, route))
    protect(home())
    if pilot:
        from flows.cli.choice.pilot import foretell_ladder

        begin(f"pilots of {loaded.ladder.name}; loading PyTorch")
        forecast = foretell_ladder(loaded.ladder, loaded.base)
        from flows.cli.show.forecast import forecast_text

        show(forecast.model_dump(mode="json"), as_json, lambda: forecast_text(forecast))
        return
    go_offline()  # a plan fetches nothing; the libraries read this when they are imported
    begin(f"planning {loaded.ladder.name}; loading PyTorch")
    from flows.cli.show.plan import plan_text
    from tasks.planning.plan import make_plan
    from tasks.routing.forecast import search_notes

    made = make_plan(loaded.ladder, loaded.base, home(), start_at, fresh)
    made = made.model_copy(update={"notes": (*made.notes, *search_notes(loaded.ladder, loaded.base, home()))})
    show(made.model_dump(mode="json"), as_json, lambda: plan_text(made))
