"""Descriptions and headlines of runs in MLflow: who taught whom, and how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.base.quality import learned_nothing
from tasks.records.format import NONE, human, percent
from tasks.records.run import StageRecord

NOTE = "mlflow.note.content"  # the tag that MLflow's page shows as a description, in Markdown
BITS, ACCURACY, SIMILARITY = "bits_per_byte", "accuracy", "similarity"


def describe_model(record: StageRecord, lineage: Sequence[StageRecord], experiment_id: str, split: str = "valid") -> str:
    """Description of a model's run: its teachers, the settings of the lesson, and its quality against parent and root.

    Args:
        record: The judged model.
        lineage: The models above it, the root first.
        experiment_id: MLflow's id of the experiment, for links to the teachers' runs.
        split: The part of the data that it was judged on.
    """
    above = {model.name: model for model in lineage}
    if record.teachers:
        links = [_link(name, above[name].mlflow_run_id if name in above else None, experiment_id) for name in record.teachers]
        taught = f"Taught by {' and '.join(links)}{_lesson(record.identity)}."
    elif lineage:
        taught = f"Trained from labels alone{_lesson(record.identity)}."
    else:
        taught = f"The root teacher, {'trained here' + _lesson(record.identity) if record.steps else 'imported'}."
    kept = [(record.retention.parent, lineage[-1].name if lineage else ""), (record.retention.root, "the root")]
    shares = [f"{percent(share)} of {who}" for share, who in kept if share is not None]
    quality = f"{_quality(record)} on the {split} split" + (f": {', '.join(dict.fromkeys(shares))}" if shares else "")
    more = [f"{human(record.parameters)} parameters; {quality}."]
    if record.gate:
        more.append(f"Its gate: {record.gate}" + (f", because {'; '.join(record.gate_reasons)}." if record.gate_reasons else "."))
    if nothing := learned_nothing(record.metrics):
        more.append(f"It has learned nothing: {nothing}.")
    return "\n\n".join(filter(None, (taught, *more, record.decision)))


def how_to_load(model_id: str) -> str:
    """Commands for a logged model, in Markdown."""
    address = f"models:/{model_id}"
    return (
        f'`mlflow.transformers.load_model("{address}")` gives a pipeline, `mlflow.pyfunc.load_model("{address}").predict(rows)` answers; '
        f"`mlflow models serve --env-manager local -m {address}` serves it. Its requirements are in `requirements.txt`."
    )


def describe_ladder(models: Sequence[StageRecord], experiment_id: str, before: Sequence[str]) -> str:
    """Description of a ladder run: what stands before, such as its page in Prefect and its note, then a line for each model."""
    head = "| model | taught by | quality | of parent | of root | gate | |\n|---|---|---|---|---|---|---|\n"
    lines = [
        f"| {_link(model.name, model.mlflow_run_id, experiment_id)} | {', '.join(model.teachers) or NONE} | {_quality(model)} "
        f"| {percent(model.retention.parent)} | {percent(model.retention.root)} | {model.gate or NONE} "
        f"| {f'reused from {model.reused_from}' if model.reused and model.reused_from else ''} |\n"
        for model in models
    ]
    first = " ".join(filter(None, before))  # one paragraph: MLflow folds what stands below the first lines
    return "\n\n".join([*([first] if first else []), *([head + "".join(lines)] if lines else [])])


def headline(model: StageRecord) -> dict[str, float]:
    """The few figures of a model that its ladder's run carries: `100k/accuracy`, `100k/of_parent`, `100k/of_root`."""
    key = next((name for name in (BITS, SIMILARITY) if name in model.metrics), ACCURACY)
    figures = {key: model.metrics.get(key), "of_parent": model.retention.parent, "of_root": model.retention.root}
    return {f"{model.name}/{name}": value for name, value in figures.items() if value is not None}


def _quality(model: StageRecord) -> str:
    if BITS in model.metrics:
        return f"{model.metrics[BITS]:.3f} bits per byte"
    if SIMILARITY in model.metrics:
        pairs = f", Spearman {model.metrics['spearman']:.3f}" if "spearman" in model.metrics else ""
        return f"similarity {model.metrics[SIMILARITY]:.3f} to the root{pairs}"
    return f"{percent(model.metrics[ACCURACY])} right" if ACCURACY in model.metrics else "not judged"


def _link(name: str, run_id: str | None, experiment_id: str) -> str:
    return f"[{name}](#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning)" if run_id else name


def _lesson(identity: Mapping[str, Any]) -> str:
    """Settings of a training in words: ` (forward-kl, alpha 0.9, temperature 1; 400 steps of 32, learning rate 0.004)`."""
    objective, training = identity.get("objective") or {}, identity.get("training") or {}
    parts = []
    if objective:
        parts.append(
            f"{objective.get('kind')}, alpha {_course(objective.get('alpha'))}, temperature {_course(objective.get('temperature'))}"
        )
    if training:
        size = training.get("batch_size")
        passes = f", each example read {training['passes']} times" if "passes" in training else ""
        parts.append(f"{training.get('steps'):,} steps of {size}{passes}, learning rate {training.get('learning_rate'):g}")
    if identity.get("seed") is not None:
        parts.append(f"seed {identity['seed']}")
    return f" ({'; '.join(parts)})" if parts else ""


def _course(value: Any) -> str:
    """A number, or a schedule as `0.9 to 0.5`."""
    if not isinstance(value, Mapping):
        return str(value)
    start, end = value.get("start"), value.get("end")
    return f"{start:g}" if end is None or end == start else f"{start:g} to {end:g}"
