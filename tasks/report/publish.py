"""Publish the report: HTML beside the run and in MLflow, artifacts in Prefect."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from conf.home import home
from conf.served import served
from tasks.records.run import RunRecord
from tasks.report import tables
from tasks.report.markdown import escape
from tasks.report.page import write_report
from tasks.report.plots.kept import keeping
from tasks.report.plots.quality import quality_png
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY
from tasks.tracking.client import run_url, ui_command
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker


def publish_report(record: RunRecord, settings_yaml: str) -> RunRecord:
    """Write the report and leave the table, the plot and the links in Prefect; returns the record with the report's path."""
    folder = Path(record.folder)
    named = record.model_copy(update={"report": str(folder / "report.html")})
    with keeping(home().figures):
        path = write_report(named, settings_yaml, folder)
    recorder_of(home(), record.run).attempt("report", record.mlflow_run_id, partial(Tracker.log_artifact, path=path))
    try:
        with keeping(home().figures):
            _show(record, named)
    except AWAY as error:  # the page is on disk, and the run's end is still to be written
        log.warning("Prefect's server did not take the table and the links (%s); see %s", error or type(error).__name__, named.report)
    return named


def _show(record: RunRecord, named: RunRecord) -> None:
    create_table_artifact(table=tables.table_cells(record), key="ladder-table", description=f"{record.run}: {record.status}")
    create_markdown_artifact(markdown=_page(named), key="ladder-report", description=f"{record.ladder}: quality against size")
    if record.mlflow_uri and record.mlflow_experiment_id and record.mlflow_run_id:
        up = served(home())
        base = (up and up.mlflow_ui) or (record.mlflow_uri if record.mlflow_uri.startswith("http") else "http://127.0.0.1:5000")
        link = run_url(base, record.mlflow_experiment_id, record.mlflow_run_id)
        create_link_artifact(link=link, link_text="this run in MLflow", key="mlflow", description=ui_command(record.mlflow_uri))


def _page(record: RunRecord) -> str:
    parts = [f"# {record.run}", tables.render_markdown(record)]
    image = quality_png(record)
    if image:
        parts.append(f"![quality against parameters](data:image/png;base64,{base64.b64encode(image).decode()})")
    if record.error:
        parts.append(f"**{escape(record.error)}**")
    parts.append(f"Report: `{record.report}`")
    return "\n\n".join(parts)
