"""Compute an audit: run the models, compare their predictions, write figures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conf.schema.ladder import Ladder
from conf.schema.workloads import answers_in_ids
from models.alignment.load import fit_tokenizer
from models.architectures.checkpoint import load_model
from models.base.device import resolve_device, use_threads
from models.data.corpus import Corpus, SplitName
from models.data.held_out import batch_count, evaluation_batches, evaluation_documents
from models.data.token_classes import CLASSES, token_classes
from models.evaluation.audit_figures import overall, reliability
from models.evaluation.audit_rows import AuditRows, audit_rows, joined_rows
from models.evaluation.audit_slices import Group, SliceSettings, groups_of
from models.evaluation.bootstrap import Figure, Limits
from models.students.vocabulary import VocabularyMap, fit_vocabulary, read_kept, reduce_corpus
from tasks.audit.worst_examples import worst_examples, write_worst
from tasks.records.run import StageRecord
from tasks.runtime.shares import Share, in_shares, shares_of
from tasks.runtime.stage_inputs import StageInputs


def audited(records: Mapping[str, StageRecord], inputs: StageInputs, precision: str, split: SplitName, folder: Path) -> None:
    """Audit `records['student']` against `parent`, `root` and perhaps `control`, and write `audit.json` and `worst.parquet`."""
    began, ladder = time.monotonic(), inputs.ladder
    rows, corpus, kept = _asked(records, inputs, precision, split)
    settings = ladder.audit
    limits = Limits(settings.min_count, settings.min_documents)
    figures = overall(rows, settings.thresholds, limits, settings.resamples)
    asked = SliceSettings(limits, settings.resamples, settings.smallest, settings.false_discovery, not answers_in_ids(ladder.workload))
    groups = groups_of(rows, _kinds(rows, corpus, kept, ladder), asked)
    _worst_of_slices(figures, groups)
    examples = worst_examples(rows, corpus, kept, ladder, split, settings.worst)
    write_worst(folder / "worst.parquet", examples)
    found = {
        "rows": len(rows.target),
        "documents": len(np.unique(rows.document)),
        "figures": {name: _plain(figure) for name, figure in figures.items()},
        "reliability": [each._asdict() for each in reliability(rows)],
        "groups": [_group(each) for each in groups],
        "worst": [each.shown() for each in examples],
    }
    (folder / "audit.json").write_text(json.dumps({**found, "seconds": time.monotonic() - began}), encoding="utf-8")


def _asked(
    records: Mapping[str, StageRecord], inputs: StageInputs, precision: str, split: SplitName
) -> tuple[AuditRows, Corpus, VocabularyMap | None]:
    """The rows, and the corpus in the student's own ids."""
    use_threads(inputs.ladder)
    kept = read_kept(Path(records["student"].folder))
    corpus = reduce_corpus(inputs.data.corpus(), kept)
    evaluation = inputs.ladder.evaluation
    count = shares_of(inputs.ladder.compute, batch_count(corpus, split, evaluation.examples, evaluation.batch_size))
    if count == 1:
        return asked_rows(inputs, records, precision, split, Share()), corpus, kept
    return joined_rows(in_shares(asked_rows, inputs, count, dict(records), precision, split, work="audit")), corpus, kept


def asked_rows(inputs: StageInputs, records: Mapping[str, StageRecord], precision: str, split: SplitName, share: Share) -> AuditRows:
    """The rows of one share of the held-out batches."""
    ladder, student = inputs.ladder, Path(records["student"].folder)
    kept, device = read_kept(student), torch.device(resolve_device(ladder.compute.device))
    corpus, evaluation = reduce_corpus(inputs.data.corpus(), kept), ladder.evaluation
    loaded: dict[str, nn.Module] = {}
    for record in records.values():
        if record.folder not in loaded:
            model = load_model(Path(record.folder), ladder.workload)
            fitted = fit_vocabulary(model, Path(record.folder), kept)
            loaded[record.folder] = fit_tokenizer(fitted, Path(record.folder), corpus).to(device).eval()
    batches = batch_count(corpus, split, evaluation.examples, evaluation.batch_size)
    return audit_rows(
        {name: loaded[record.folder] for name, record in records.items()},
        share.of(evaluation_batches(corpus, split, evaluation.examples, evaluation.batch_size), batches),
        evaluation_documents(corpus, split, evaluation.examples),
        corpus.interface.output_ids,
        device,
        precision,
        first=share.first(batches) * evaluation.batch_size,
    )


def _kinds(rows: AuditRows, corpus: Corpus, kept: VocabularyMap | None, ladder: Ladder) -> dict[str, Any]:
    kinds: dict[str, Any] = {"slice": (rows.slice, corpus.info.slice_names)}
    if answers_in_ids(ladder.workload) and corpus.tokenizer_folder is not None:
        ids = kept.kept if kept else range(corpus.info.vocabulary or 0)
        classes = token_classes(corpus.tokenizer_folder, ids, ladder.data.source == "python-stdlib")
        kinds["token"] = (classes[rows.target], CLASSES)
    return kinds


def _worst_of_slices(figures: dict[str, Figure], groups: list[Group]) -> None:
    """Add the largest amplification among the slices, judged by its upper bound: the figure that a gate asks for."""
    for teacher in ("parent", "root"):
        amplified = [g.figures[f"{teacher}.amplification"] for g in groups if g.kind == "slice" and f"{teacher}.amplification" in g.figures]
        if f"{teacher}.agreement" in figures:
            none = Figure(None, None, None, 0, 0)
            figures[f"{teacher}.amplification"] = max(amplified, key=lambda figure: figure.high or 0.0, default=none)


def _plain(figure: Figure) -> dict[str, float | int | None]:
    return figure._asdict()


def _group(group: Group) -> dict[str, Any]:
    return {**group._asdict(), "chances": dict(group.chances), "figures": {name: _plain(figure) for name, figure in group.figures.items()}}
