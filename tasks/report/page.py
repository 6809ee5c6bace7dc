"""Write the report of a run: one self-contained HTML file.

Every figure comes from the record, from the curves in the models' folders or from other results of the run; the sections
find them, the templates only lay them out.
"""

from __future__ import annotations

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conf.atomic import write_atomic
from conf.errors import StoreError
from conf.home import home
from conf.secrets import without_user
from conf.served import served
from tasks.records import format as fmt
from tasks.records.run import RunRecord
from tasks.report import sections, tables
from tasks.report.plots.style import MANY
from tasks.report.sections.outcome import ROWS, tiles
from tasks.report.sections.settings import machine
from tasks.tracking.client import is_server, run_url

CONTENTS = {  # topic of a section -> its name in the table of contents
    "outcome": "Verdict",
    "quality": "Quality against parameters",
    "proof": "Control arms",
    "costs": "Cost",
    "bench": "Latency and memory",
    "curves": "Learning curves",
    "settings": "Settings and reproduction",
}
TEMPLATES = Path(__file__).with_name("templates")


def write_report(record: RunRecord, settings_yaml: str, folder: Path) -> Path:
    """Write `folder/report.html`, whole or not at all, over an older one.

    Args:
        record: The run, finished or not; whatever it holds is shown.
        settings_yaml: The resolved settings, shown as they are.
        folder: The run's folder; made when missing.

    Returns:
        The file's path.

    Raises:
        StoreError: The file could not be written.
    """
    return write_page(render(record, settings_yaml), folder / "report.html")


def write_page(html: str, path: Path) -> Path:
    """Write a page, whole or not at all.

    Raises:
        StoreError: The file could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, html)
    except OSError as error:
        raise StoreError(
            f"The report {path} could not be written: {error.strerror or error}. Free some space or check its permissions."
        ) from error
    return path


def render(record: RunRecord, settings_yaml: str) -> str:
    """The report's HTML."""
    found = sections.gather(record)
    quality = tables.quality_of(record)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            record=record,
            settings_yaml=settings_yaml,
            quality=quality,
            unit=ROWS[quality.key],
            many=MANY,
            models=record.models,
            tiles=tiles(record),
            machine=machine(record.environment),
            sections=found,
            contents=[(topic, CONTENTS.get(topic, topic.capitalize())) for topic in found],
            split=tables.SPLIT,
            mlflow=mlflow_page(record),
            verdict=next((str(section["verdict"]) for section in found.values() if section.get("verdict")), None),
        )
    )


def mlflow_page(record: RunRecord) -> str | None:
    """Address of a run's page in MLflow, on the server that its record names or on the one that is served for this home."""
    if not (record.mlflow_uri and record.mlflow_experiment_id and record.mlflow_run_id):
        return None
    up = served(home())
    base = record.mlflow_uri if is_server(record.mlflow_uri) else (up and up.mlflow_ui)
    return run_url(base, record.mlflow_experiment_id, record.mlflow_run_id) if base else None


@functools.cache
def templates() -> Environment:
    """The templates, with the filters that all of them may use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "human": fmt.human,
        "percent": fmt.percent,
        "duration": fmt.duration,
        "operations": fmt.operations,
        "moment": fmt.moment,
        "no_password": without_user,
        "file": lambda path: Path(path).absolute().as_uri(),
        "short": lambda text: text[:12],
        "numeric": tables.is_numeric,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    return environment
