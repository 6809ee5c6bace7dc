"""Rows of the model table, for the terminal, Prefect and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from conf.schema.workloads import answers_in_ids, makes_embeddings
from models.base.quality import baseline_figures, baseline_name
from tasks.records.format import NONE, human, percent, seconds
from tasks.records.run import RunRecord, StageRecord

NUMERIC = frozenset({"parameters", "of parent", "of root", "seconds"})  # and the quality, whose header names its unit


class QualityMetric(NamedTuple):
    """Metric by which the models of a run are judged.

    Attributes:
        key: Name in `StageRecord.metrics`.
        unit: Short name with its unit: the header of a column.
        axis: Long name with its unit and direction: the label of an axis.
        ratio: The metric whose ratio a retention is.
    """

    key: str
    unit: str
    axis: str
    ratio: str


BITS = QualityMetric("bits_per_byte", "bits/byte", "bits per byte (lower is better)", "perplexity ratio")
ACCURACY = QualityMetric("accuracy", "accuracy", "accuracy in % (higher is better)", "accuracy ratio")
SIMILARITY = QualityMetric("similarity", "similarity", "similarity to the root (higher is better)", "ratio of rank correlations")
NO_MODEL = ("not run", "baseline")  # origins of rows that are none of a finished model
BROKEN = {
    "parameters": "params",
    BITS.unit: "bits/\nbyte",
    "of parent": "of\nparent",
    "seconds": "sec",
    "of root": "of\nroot",
}  # on a terminal


SPLIT = "validation split"  # on which every figure of a run is measured; a proof reads the test split beside it


def not_run(record: RunRecord) -> list[str]:
    """Names of the models that were planned and not reached, the root teacher included, in the ladder's order."""
    reached = {stage.name for stage in record.stages}
    return [*([] if record.teacher else ["teacher"]), *(name for name in record.planned if name not in reached)]


def quality_of(record: RunRecord) -> QualityMetric:
    """The metric by which the run's models are judged."""
    return BITS if answers_in_ids(record.workload) else SIMILARITY if makes_embeddings(record.workload) else ACCURACY


def metric_in(metrics: Mapping[str, float]) -> QualityMetric:
    """The metric by which a model with these figures is judged."""
    return next((each for each in (BITS, SIMILARITY, ACCURACY) if each.key in metrics), BITS)


def score(quality: QualityMetric, metrics: dict[str, float]) -> str:
    """The quality in `metrics`: bits per byte and similarity with three decimals, accuracy in per cent."""
    value = metrics.get(quality.key)
    if value is None:
        return NONE
    return percent(value) if quality is ACCURACY else f"{value:.3f}"


def baseline_of(record: RunRecord) -> tuple[str, dict[str, float]] | None:
    """Name and figures of the guess that the run's models are measured by; None where an older version judged them."""
    found = (baseline_figures(model.metrics) for model in record.models)
    return next(((baseline_name(record.workload), figures) for figures in found if figures), None)


def with_teachers(model: StageRecord) -> str:
    """A model with its teachers, nearest first: `100k <- 300k`."""
    return f"{model.name} <- {', '.join(model.teachers)}" if model.teachers else model.name


def origin(model: StageRecord) -> str:
    """Origin of a model: reused, resumed at a step, imported or computed; and whether its gate had it extended or inserted."""
    how = "computed" if model.steps else "imported"
    if model.reused:
        how = "reused"
    elif model.resumed_at is not None:
        how = f"resumed at {model.resumed_at}"
    more = [*(["inserted"] if model.inserted else []), *([f"extended {model.extensions}x"] if model.extensions else [])]
    return ", ".join([how, *more])


def rows(record: RunRecord) -> tuple[list[str], list[list[str]]]:
    """The table of a run.

    Returns:
        The headers, and a row of as many cells for each model: the root teacher, the finished stages, then those planned and
        not run; last the baseline.
    """
    quality = quality_of(record)
    headers = ["model", "parameters", quality.unit, "of parent", "of root", "gate", "seconds", "origin"]
    lines = [
        [
            with_teachers(model),
            human(model.parameters),
            score(quality, model.metrics),
            percent(model.retention.parent),
            percent(model.retention.root),
            model.gate or NONE,
            seconds(model.seconds) if model.steps else NONE,
            origin(model),
        ]
        for model in record.models
    ]
    missing = [[name, *[NONE] * (len(headers) - 2), "not run"] for name in not_run(record)]
    guess = baseline_of(record)
    below = [[guess[0], NONE, score(quality, guess[1]), *[NONE] * (len(headers) - 4), "baseline"]] if guess else []
    return headers, lines + missing + below


def render_rich(record: RunRecord) -> Table:
    """The table for a terminal; it fits 80 columns, long names fold."""
    headers, lines = rows(record)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", collapse_padding=True)
    for header in headers:
        if is_numeric(header):
            table.add_column(BROKEN.get(header, header), justify="right", no_wrap=True)
        else:
            table.add_column(header, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line), style="dim" if line[-1] in NO_MODEL else "")
    return table


def is_numeric(header: str) -> bool:
    """Whether a column of `rows` holds numbers, to be aligned on the right."""
    return header in NUMERIC | {BITS.unit, ACCURACY.unit, SIMILARITY.unit}


def render_markdown(record: RunRecord) -> str:
    """The table in Markdown, for an artifact of the flow run."""
    headers, lines = rows(record)
    rule = ["---:" if is_numeric(header) else "---" for header in headers]
    cells = [headers, rule, *([cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def table_cells(record: RunRecord) -> list[dict[str, str]]:
    """The table as Prefect's `create_table_artifact` wants it: a dictionary for each row."""
    headers, lines = rows(record)
    # The page renders cells as Markdown, where a lone hyphen is a list.
    return [{header: "" if cell == NONE else cell for header, cell in zip(headers, line, strict=True)} for line in lines]
