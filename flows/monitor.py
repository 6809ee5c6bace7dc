"""Watch promoted models: judge their new windows, record them, hand on drops."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from pydantic import Field

from conf.home import Home, home
from conf.loading.path_policy import restrict
from flows.adapter.run_labels import is_served
from flows.adapter.steps import cancellable
from flows.parameters import roots
from flows.redistill import consider
from tasks.monitoring.history import read_history, write_entry
from tasks.monitoring.look_together import look_together
from tasks.monitoring.record import record_window
from tasks.monitoring.reference import Watched
from tasks.monitoring.targets import targets
from tasks.records.monitoring import WindowEntry, WindowReport
from tasks.report.monitoring_page import window_markdown, write_monitoring_page
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY
from tasks.tracking.recorder import recorder_of, tracker_of
from tasks.tracking.versions import CHAMPION

DRIFT = "ladder.drift"
ModelText = Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,191}$")]


@flow(name="monitor", flow_run_name="monitor {model}", persist_result=False)
@cancellable
def monitor(model: ModelText = "", windows: str = "") -> list[WindowReport] | State[list[WindowReport]]:
    """Judge the windows of promoted models that were not judged yet, and begin what their drop asks for.

    Args:
        model: NAME, NAME@ALIAS, NAME/VERSION or a run; empty: every champion.
        windows: Folder or pattern of window files; empty: those of the settings, else the windows that were served.
    """
    if is_served():
        restrict(roots())
    paths = home()
    found: list[WindowReport] = []
    watched = targets(tracker_of(paths), paths, model)
    for seen, looked in zip(watched, look_together(paths, watched, windows or None), strict=True):
        found += [entry.report for entry in looked.entries]
        publish(paths, seen)
    return found


def publish(paths: Home, seen: Watched) -> Path:
    """Record the windows of a model that are not recorded yet, write its page, and hand on what they ask for.

    Whatever a killed process has left undone is done by the next one: in MLflow a window is recorded once, and a cause is acted on once.
    """
    name = seen.version.name
    entries = [_recorded(paths, seen, entry) for entry in read_history(paths, name)]
    reports = [entry.report for entry in entries]
    write_monitoring_page(paths, name, reports, seen.ladder.monitoring.psi)  # now, too: what follows may take hours
    for entry in entries:
        if not entry.handled:
            _hand_on(entry.report)
            if CHAMPION in seen.version.aliases and not (is_served() and entry.report.trigger):
                consider(entry.report)  # of a served trigger the server's automation does so, which a person may switch off
            write_entry(paths, entry.model_copy(update={"handled": True}))
    return write_monitoring_page(paths, name, reports, seen.ladder.monitoring.psi)


def _recorded(paths: Home, seen: Watched, entry: WindowEntry) -> WindowEntry:
    """The window with its run in MLflow, where it is to be recorded and MLflow takes it."""
    report = entry.report
    if report.mlflow_run_id is not None or seen.ladder.tracking == "off":
        return entry
    recorder = recorder_of(paths, f"monitoring-{report.name}")
    run_id = recorder.attempt_with_tracker(f"window {report.window}", partial(record_window, report=report), patient=False)
    if run_id is None:
        return entry
    recorded = entry.model_copy(update={"report": report.model_copy(update={"mlflow_run_id": run_id})})
    write_entry(paths, recorded)
    return recorded


def _hand_on(report: WindowReport) -> None:
    """Show a window in Prefect, and report a drop: as an event, and to the re-distillation."""
    log.info("%s, window %s: %s. %s", report.version, report.window, "unusable" if report.unusable else report.diagnosis, report.why)
    try:
        create_markdown_artifact(
            markdown=window_markdown(report), key=f"monitoring-{report.name}", description=f"{report.window}: {report.diagnosis}"
        )
        if report.trigger:
            emit_event(
                event=DRIFT,
                resource={"prefect.resource.id": f"ladder.model.{report.name}", "prefect.resource.name": report.version},
                payload={"cause": report.cause, "diagnosis": report.diagnosis, "why": report.why, "window": report.window},
            )
    except AWAY as error:
        log.warning("Prefect's server did not take the window %s (%s); its history has it", report.window, error or type(error).__name__)
