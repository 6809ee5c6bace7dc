"""Evaluate a model on held-out documents, against its parent and the root.

The result is stored, so it is never computed twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from conf.schema.measures.evaluation import Evaluation
from models.base.files import read_json
from models.base.numerics import NUMERICS
from models.base.quality import baseline_figures, baseline_name, learned_nothing, retention
from models.data.corpus import SplitName
from tasks.evaluation.harness_tasks import judge_by_tasks
from tasks.records.format import percent
from tasks.records.run import AlsoRecord, DataRecord, Retention, SampleRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute, find_stored
from tasks.store.fingerprint import fingerprint

if TYPE_CHECKING:
    from tasks.evaluation.evaluator import Measured

SPLIT: SplitName = "valid"
Quality = tuple[dict[str, float], dict[str, dict[str, float]]]  # of all rows, and of each slice
ANSWERS = "answers.npy"


def evaluation_identity(
    record: StageRecord,
    teachers: dict[str, StageRecord],
    data: DataRecord,
    evaluation: Evaluation,
    precision: str,
    split: SplitName = SPLIT,
) -> dict[str, Any]:
    """Hashes of the weights that were judged, of those they were compared with, and of the data."""
    return {
        "kind": "evaluation",
        "numerics": NUMERICS,
        "weights": record.weights_sha256,
        "teachers": {name: teacher.weights_sha256 for name, teacher in teachers.items()},
        "data": data.content_hash,
        "split": split,
        "examples": evaluation.examples,
        "samples": [evaluation.samples, evaluation.sample_tokens],
        "precision": precision,
    } | ({"answers": True} if split == "test" else {})


def evaluate_model(
    record: StageRecord,
    lineage: Sequence[StageRecord],
    inputs: StageInputs,
    precision: str,
    split: SplitName = SPLIT,
) -> StageRecord:
    """Judge a model; `lineage` are its ancestors, root first, empty for the root teacher. The test split is for the end of a proof."""
    ladder, context = inputs.ladder, inputs.context
    teachers = {"parent": lineage[-1], "root": lineage[0]} if lineage else {}
    identity = evaluation_identity(record, teachers, inputs.data, ladder.evaluation, precision, split)

    def compute() -> Write:
        from tasks.evaluation.evaluator import measure  # torch is imported where something is computed

        result = measure(record, teachers, inputs, precision, split)
        return lambda folder: _write(folder, result, split)

    entry = Entry("evaluation", record.name, identity, _read)
    found = find_or_compute(store_of(context), entry, context.made, compute, fresh=context.is_fresh(record.name))
    (metrics, slices), samples = _read(found.folder)
    kept = Retention(**{name: retention(ladder.workload, metrics, name) for name in teachers})
    also = _also(record, teachers, inputs, precision) if split == SPLIT else {}
    more = {"also": also, "tasks": judge_by_tasks(record, inputs) if split == SPLIT else {}}
    judged = record.model_copy(update={"metrics": metrics, "slices": slices, "retention": kept, "samples": samples, **more})
    where = "" if split == SPLIT else f" on the {split} split"
    log.info("%s%s: %s", record.name, where, summary(judged))
    if why := learned_nothing(metrics):
        log.warning("%s%s has learned nothing: %s", record.name, where, why)
    return judged


def _also(record: StageRecord, teachers: dict[str, StageRecord], inputs: StageInputs, precision: str) -> dict[str, AlsoRecord]:
    """Judge a model on further held-out data, each an evaluation of its own in the store."""
    ladder, context, found = inputs.ladder, inputs.context, {}
    for name, data in inputs.data.also.items():
        own = replace(
            inputs, ladder=ladder.model_copy(update={"evaluation": ladder.evaluation.model_copy(update={"samples": 0})}), data=data
        )

        def compute(own: StageInputs = own) -> Write:
            from tasks.evaluation.evaluator import measure

            result = measure(record, teachers, own, precision, SPLIT)
            return lambda folder: _write(folder, result, SPLIT)

        entry = Entry("evaluation", record.name, evaluation_identity(record, teachers, data, own.ladder.evaluation, precision), _read)
        stored = find_or_compute(store_of(context), entry, context.made, compute, fresh=context.is_fresh(record.name))
        (metrics, slices), _ = _read(stored.folder)
        rows = int(sum(figures["count"] for figures in slices.values()))
        kept = Retention(**{teacher: retention(ladder.workload, metrics, teacher) for teacher in teachers})
        found[name] = AlsoRecord(metrics=metrics, retention=kept, rows=rows, few=rows < ladder.audit.min_count)
        log.info("%s on %s: %s", record.name, name, summary(record.model_copy(update={"metrics": metrics, "retention": kept})))
    return found


def summary(record: StageRecord) -> str:
    """The figures that matter, in one line."""
    metrics = record.metrics
    guess = baseline_figures(metrics)
    if "bits_per_byte" in metrics:
        main = f"{metrics['bits_per_byte']:.3f} bits/byte"
        main += f" ({baseline_name('causal-lm')} {guess['bits_per_byte']:.3f})" if guess else ""
        main += f", {percent(metrics['exact_match'])} of answers exact" if "exact_match" in metrics else ""
    elif "similarity" in metrics:
        main = f"similarity {metrics['similarity']:.3f} to the root, cosine {metrics['cosine']:.3f}"
        main += f" ({baseline_name('embedding')} {guess['cosine']:.3f})" if guess else ""
        main += f", recall of texts {percent(metrics['recall'])}" if "recall" in metrics else ""
        main += f", Spearman {metrics['spearman']:.3f} on {int(metrics['pairs']):,} pairs" if "spearman" in metrics else ""
    else:
        main = f"accuracy {percent(metrics['accuracy'])}"
        main += f" ({baseline_name('')} {percent(guess['accuracy'])})" if guess else ""
    if record.retention.parent is None:
        return main
    return f"{main}, keeps {percent(record.retention.parent)} of its teacher and {percent(record.retention.root)} of the root"


def _read(folder: Path) -> tuple[Quality, tuple[SampleRecord, ...]]:
    """The figures of a model, of each of its slices, and its samples.

    Raises:
        OSError: A file is missing.
        ValueError: A file is damaged, or of another version.
    """
    quality = read_json(folder / "evaluation.json")
    TypeAdapter(Quality).validate_python(quality)
    return quality, TypeAdapter(tuple[SampleRecord, ...]).validate_json((folder / "samples.json").read_bytes())


def _write(folder: Path, result: Measured, split: SplitName) -> None:
    (folder / "evaluation.json").write_text(json.dumps(result.quality), encoding="utf-8")
    (folder / "samples.json").write_text(json.dumps(result.samples), encoding="utf-8")
    if split == "test":  # read once for each model: a proof needs every answer, too
        np.save(folder / ANSWERS, result.answers)


def answers_on_test(record: StageRecord, inputs: StageInputs, precision: str) -> NDArray[np.int32]:
    """Answers and labels, (2, N) of N examples or tokens, of a model that was evaluated alone on the test split."""
    identity = evaluation_identity(record, {}, inputs.data, inputs.ladder.evaluation, precision, "test")
    found = find_stored(store_of(inputs.context), "evaluation", fingerprint(identity))
    assert found is not None
    return np.load(found.folder / ANSWERS, allow_pickle=False)
