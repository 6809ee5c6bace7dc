"""Section of quality: every figure of each model, drawn against parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from models.base.quality import baseline_figures, baseline_name
from models.base.task_figures import TaskFigures
from tasks.evaluation.harness_tasks import shown as task_shown
from tasks.records import format as fmt
from tasks.records.run import RunRecord
from tasks.report import tables
from tasks.report.plots.quality import Control, Interval, quality_svg

# Figure -> header, by the metric that the models are judged by.
FIGURES = {
    tables.BITS.key: {"bits_per_byte": "bits/byte", "perplexity": "perplexity a token", "nll": "nll, nats/token", "accuracy": "next token"},
    tables.ACCURACY.key: {"accuracy": "accuracy", "macro_f1": "macro F1", "nll": "nll, nats", "ece": "ECE"},
    tables.SIMILARITY.key: {
        "similarity": "similarity to the root",
        "similarity_parent": "to the parent",
        "cosine": "cosine to the root",
        "mse": "MSE to the root",
        "spearman": "Spearman, scored pairs",
        "recall": "picture to text",
        "recall_pictures": "text to picture",
    },
}
EXACT = "exact_match"
SHARES = frozenset({"accuracy", "macro_f1", EXACT, "recall", "recall_pictures"})


def section(
    record: RunRecord, controls: Sequence[Control] = (), intervals: Mapping[str, Interval] | None = None
) -> Mapping[str, Any] | None:
    """The picture, for wide and for narrow windows, with the control arms and the intervals that other sections know of; the figures."""
    plots = [(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := quality_svg(record, layout, controls, intervals))]
    note = "Hollow: control arms, beside one another where they have the same size." if controls else None
    if not plots:
        return None
    return {
        "heading": f"Quality against parameters, on the {tables.SPLIT}",
        "plots": plots,
        "tables": [_figures(record), *_elsewhere(record), *_tasks(record)],
        "note": note,
    }


def _figures(record: RunRecord) -> dict[str, Any]:
    shown = dict(FIGURES[tables.quality_of(record).key])
    if any(EXACT in model.metrics for model in record.models):
        shown[EXACT] = "exact answers"
    known = [(model.name, model.metrics) for model in record.models]
    guess = tables.baseline_of(record)
    rows = [[name, *(_shown(key, figures.get(key)) for key in shown)] for name, figures in [*known, *([guess] if guess else [])]]
    return {"headers": ["model", *shown.values()], "rows": rows, "sums": 1 if guess else 0}


def _elsewhere(record: RunRecord) -> list[dict[str, Any]]:
    """Quality and retention on each corpus of `evaluation.also`."""
    quality = tables.quality_of(record)
    found = []
    for name in dict.fromkeys(name for model in record.models for name in model.also):
        judged = [(model.name, model.also[name]) for model in record.models if name in model.also]
        rows = [
            [
                model,
                tables.score(quality, each.metrics),
                fmt.percent(each.retention.parent),
                fmt.percent(each.retention.root),
                f"{each.rows:,}",
            ]
            for model, each in judged
        ]
        guess = baseline_figures(judged[0][1].metrics)
        rows += [[baseline_name(record.workload), tables.score(quality, guess), *[fmt.NONE] * 3]] if guess else []
        few = ": too few examples" if judged[0][1].few else ""
        headers = ["model", quality.unit, "of parent", "of root", "rows"]
        found.append(
            {"title": f"Also judged on {name}, which no training saw{few}", "headers": headers, "rows": rows, "sums": int(bool(guess))}
        )
    return found


def _tasks(record: RunRecord) -> list[dict[str, Any]]:
    """The main figure of each task of lm-eval, with its standard error."""
    names = list(dict.fromkeys(name for model in record.models for name in model.tasks))
    if not names:
        return []
    rows = [[model.name, *(_task(model.tasks.get(name)) for name in names)] for model in record.models]
    known = {name: task for model in record.models for name, task in model.tasks.items()}
    headers = [f"{name}, {known[name].main} ({known[name].examples:,})" for name in names]
    return [{"title": "Tasks of lm-eval: main figure, its standard error, examples", "headers": ["model", *headers], "rows": rows}]


def _task(task: TaskFigures | None) -> str:
    if task is None:
        return fmt.NONE
    error = task.errors.get(task.main)
    return task_shown(task) if error is None else f"{task_shown(task)} (± {task_shown(task, error)})"


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return fmt.NONE
    return fmt.percent(value) if key in SHARES else f"{value:.5f}" if key == "mse" else f"{value:,.3f}"
