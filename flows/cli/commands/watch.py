"""`ladder monitor` and `redistill`: watch a promoted model, and distil it again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.arguments import Json
from flows.cli.printing import begin, show

if TYPE_CHECKING:
    from prefect import Flow

    from tasks.records.monitoring import WindowReport


def monitor(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="NAME, NAME@ALIAS, NAME/VERSION or a run; none: every champion.")] = "",
    windows: Annotated[
        str, typer.Option("--windows", metavar="GLOB", help="Folder or pattern of window files; none: the windows that were served.")
    ] = "",
    history: Annotated[bool, typer.Option("--history", help="Show the windows judged so far, and judge none.")] = False,
    as_json: Json = False,
) -> None:
    """Judge the windows of a promoted model that were not judged yet: is it as good as at promotion?"""
    from conf.home import home
    from flows.cli.show.monitoring import history_text, windows_text

    if history:
        found = _history(model)
        show([report.model_dump(mode="json") for report in found], as_json, lambda: history_text(found, home()))
        return
    begin("monitor: loading PyTorch, MLflow and Prefect")
    reports = _run(model, windows)
    show([report.model_dump(mode="json") for report in reports], as_json, lambda: windows_text(reports, home()))


def _history(model: str) -> list[WindowReport]:
    """The windows that were judged, of one model or of all, the oldest look first.

    Raises:
        UserError: The model has no history.
    """
    from conf.errors import UserError
    from conf.home import home
    from conf.loading.introspect import suggest
    from tasks.monitoring.history import names_of, read_history

    name, known = model.partition("@")[0].partition("/")[0], names_of(home())
    if name and name not in known:
        remedy = f"{suggest(name, known)}`ladder monitor {name}` judges its first windows."
        raise UserError.about("MODEL", model, f"a model with a history: {', '.join(known) or 'there is none yet'}", remedy)
    return [entry.report for each in ([name] if name else known) for entry in read_history(home(), each)]


def _run(model: str, windows: str) -> list[WindowReport]:
    """Run the flow in this process."""
    from flows.cli.launch import prepare_flow, result_of, run_here

    return result_of(partial(run_here, prepare_flow(lambda: None, _import_monitor, recorded=False), model, windows))


def _import_monitor() -> Flow[..., Any]:
    from flows.monitor import monitor

    return monitor


def redistill(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Registered model; none: the only one that was promoted.")] = None,
    windows: Annotated[
        list[str] | None, typer.Option("--windows", metavar="GLOB", help="Window files, folders or patterns; none: those served.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh-teacher", help="Train the teacher on the labelled rows first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    history: Annotated[bool, typer.Option("--history", help="List the decisions so far, the newest first.")] = False,
    as_json: Json = False,
) -> None:
    """Distil a promoted model again with the requests that it has had, and promote the student if it is better."""
    if history:
        from tasks.redistill.history import history_of, history_text

        found = history_of(name)
        show([each.model_dump(mode="json") for each in found], as_json, lambda: history_text(found))
        return
    begin("redistill: loading PyTorch, MLflow and Prefect")
    from conf.errors import LadderError, UserError
    from conf.home import home
    from flows.cli.launch import prepare_flow, result_of, run_here
    from tasks.tracking.runs import user

    prepare_flow(lambda: None, _import_flow, recorded=False)
    from flows.cli.show.redistill import outcome_text, plan_of, the_name
    from flows.redistill import look_ahead
    from flows.redistill import redistill as flow
    from tasks.redistill.plan import REFRESH
    from tasks.redistill.prepare import DISTIL, Drop

    model, diagnosis, files = name or the_name(home()), REFRESH if refresh else DISTIL, tuple(windows or ())
    if dry_run:
        plan = plan_of(*look_ahead(Drop(model, None, diagnosis, reason, user(), files)))
        show(plan, as_json, lambda: "\n".join(f"{key:<14}{value}" for key, value in plan.items()))
        return
    decision = result_of(partial(run_here, flow, model, diagnosis=diagnosis, windows=files, reason=reason, by=user()))
    if decision.outcome == "not done":
        raise UserError(decision.reason)
    show(decision.model_dump(mode="json"), as_json, lambda: outcome_text(decision))
    if decision.outcome in ("put off", "failed", "refused"):
        raise LadderError(decision.words)


def _import_flow() -> object:
    import flows.redistill

    return flows.redistill
