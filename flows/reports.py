"""Flows that write reports and comparisons again, for forms of the Prefect UI."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from conf.home import home
from flows.adapter.steps import publish_report
from flows.parameters import OptionalRun, RunName
from tasks.report.comparison.text import comparison_text
from tasks.report.markdown import fence
from tasks.report.rebuild import compare as compare_pages
from tasks.report.rebuild import settings_of
from tasks.runtime.runs.run_registry import load_run


@flow(name="report", flow_run_name="report {run}", persist_result=False)
def report(run: OptionalRun = "") -> str:
    """Write a run's report again, from its record: in its folder, in MLflow and here.

    Args:
        run: Name of the run, as `ladder runs` shows it; empty: the last one.
    """
    record = load_run(home(), run or None)
    named = publish_report(record, settings_of(home(), record))
    return named.report or ""


@flow(name="compare", flow_run_name="compare {run} with {other}", persist_result=False)
def compare(run: RunName, other: RunName) -> str:
    """Put two runs side by side: settings that differ, and each model's quality and cost.

    Args:
        run: Name of the first run, as `ladder runs` shows it.
        other: Name of the run that is compared with it: better means that it is better there.
    """
    found, path = compare_pages(home(), run, other)
    text = comparison_text(found)
    page = f"# {run} and {other}\n\n{fence(text)}\n{text}\n{fence(text)}\n\nPage: `{Path(path)}`"
    create_markdown_artifact(markdown=page, key="ladder-comparison", description=f"{run} and {other}")
    return str(path)
