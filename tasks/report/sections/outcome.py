"""Section of the outcome: the verdict, and the quality that each model keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.home import Home
from conf.schema.workloads import UNJUDGED
from models.base.quality import learned_nothing
from tasks.records import format as fmt
from tasks.records.run import RunRecord, StageRecord
from tasks.registry.history import standing
from tasks.report import tables
from tasks.report.reproduce import prove_command

SENTENCES = 8  # shown at once
ROWS = {tables.BITS.key: "tokens", tables.ACCURACY.key: "examples", tables.SIMILARITY.key: "examples"}
REASONS = {
    "failed": "not finished, the run failed",
    "stopped": "not run, a gate stopped the run",
    "interrupted": "not finished, the run was interrupted",
    "cancelled": "not finished, the run was cancelled",
    "running": "not finished yet",
}
ENDED = {"running": "has not ended yet"} | {status: f"was {status}" for status in ("interrupted", "cancelled")} | {"failed": "failed"}


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The sentences: first those on the root, the last student and goals that were missed; and the command of the proof."""
    sentences = verdicts(record)
    folded = sentences if len(sentences) > SENTENCES else []
    return {
        "sentences": [sentences[0], *sentences[len(record.stages) :]] if folded else sentences,
        "folded": folded,
        "judged": _judged(record),
        "prove": None if record.workload in UNJUDGED else prove_command(record),
        "unfinished": _unfinished(record),
    }


def _unfinished(record: RunRecord) -> str | None:
    """That the report is of a part of a run."""
    if record.status not in ENDED:
        return None
    count = len(record.stages)
    reached = f"{count} of {len(record.planned)} stages {'is' if count == 1 else 'are'} finished"
    return f"The run {ENDED[record.status]}: {reached}, and the report shows what there is."


def verdicts(record: RunRecord) -> list[str]:
    """A plain sentence for each finished model on its retention, and one for those that were not reached."""
    quality = tables.quality_of(record)
    root = record.teacher
    sentences = []
    if root:
        sentence = f"The root {root.name} has {fmt.human(root.parameters)} parameters and scores {_scored(quality, root)}"
        poor = [f"it is poor, and teaches as teacher.allow_poor lets it: {root.poor}"] if root.poor else _nothing(root)
        compared = [root.compared] if root.compared else []
        sentences.append(f"{'; '.join([sentence, *poor, *compared])}.")
    sentences += [_verdict(stage, root, quality) for stage in record.stages]
    missing = tables.not_run(record)
    names = ", ".join(missing) if len(missing) <= SENTENCES else f"{missing[0]} to {missing[-1]}, {len(missing)} models"
    sentences += [f"{names}: {REASONS.get(record.status, 'not run')}."] if missing else []
    now = f": {found}" if (found := standing(Home(Path(record.folder).absolute().parent.parent), record.version)) else ""
    sentences += [f"{record.stages[-1].name} is {record.version} in MLflow's registry{now}."] if record.version else []
    counts = record.data.counts if record.data else None
    sentences += [counts.labels_in_words] if counts and counts.labels_in_words else []
    sentences += [f"Data: {note}." for note in counts.notes] if counts else []
    return sentences


def _verdict(stage: StageRecord, root: StageRecord | None, quality: tables.QualityMetric) -> str:
    parent = stage.teachers[0] if stage.teachers else None
    kept = []
    if stage.retention.parent is not None and parent and not (root and parent == root.name):
        kept.append(f"{fmt.percent(stage.retention.parent)} of {parent}")
    if stage.retention.root is not None:
        kept.append(f"{fmt.percent(stage.retention.root)} of the root")
    sentence = f"{stage.name} scores {_scored(quality, stage)}"
    if kept:
        sentence = f"{stage.name} keeps {' and '.join(kept)} ({quality.ratio})"
    if root:
        sentence += f" with {smaller(root.parameters, stage.parameters)} parameters"
    endings = {
        "passed": "its gate passed",
        "warned": "its gate warned",
        "stopped": "its gate refused it",
        "approved": "approved by a person",
    }
    ends = [sentence, *(["put in by the next gate"] if stage.inserted else []), *([endings[stage.gate]] if stage.gate else [])]
    return f"{'; '.join([*ends, *_nothing(stage)])}."


def _nothing(model: StageRecord) -> list[str]:
    """That a model has learned nothing, and why that is said."""
    why = learned_nothing(model.metrics)
    return [f"it has learned nothing: {why}"] if why else []


def smaller(root: int, student: int) -> str:
    """Size of a student relative to the root, in words: `9.1x fewer`."""
    ratio = root / student
    if ratio < 1:
        return f"{1 / ratio:.1f}x more"
    return "as many" if ratio < 1.05 else f"{ratio:.1f}x fewer" if ratio < 99.5 else f"{ratio:.0f}x fewer"


def _scored(quality: tables.QualityMetric, model: StageRecord) -> str:
    score = tables.score(quality, model.metrics)
    return f"{score} bits per byte" if quality is tables.BITS else f"{score} {quality.unit}"


def _judged(record: RunRecord) -> str | None:
    """Number of held-out rows that the models were judged by, in words; None where the slices hold no count."""
    models = record.models
    counted = int(sum(metrics.get("count", 0) for metrics in models[-1].slices.values())) if models else 0
    return f"{counted:,} held-out {ROWS[tables.quality_of(record).key]}" if counted else None


def tiles(record: RunRecord) -> list[tuple[str, str]]:
    """The few figures a reader looks for first: value and caption, of the last finished student."""
    quality, root = tables.quality_of(record), record.teacher
    shown = []
    if record.stages:
        last = record.stages[-1]
        shown = [
            (fmt.human(last.parameters), f"parameters in {last.name}"),
            (tables.score(quality, last.metrics), f"{quality.unit} of {last.name}, {tables.SPLIT}"),
        ]
        if root and last.retention.root is not None:
            shown.append((fmt.percent(last.retention.root), f"of the root kept, {smaller(root.parameters, last.parameters)} parameters"))
    elif root:
        shown = [
            (fmt.human(root.parameters), f"parameters in {root.name}"),
            (tables.score(quality, root.metrics), f"{quality.unit} of {root.name}, {tables.SPLIT}"),
        ]
    return [*shown, (fmt.duration(record.seconds), "the last attempt took")] if shown and record.seconds is not None else shown
