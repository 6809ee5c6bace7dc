"""Measure the quality of a model on held-out documents, in full or in short."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from conf.schema.measures.evaluation import Evaluation
from conf.schema.workloads import makes_embeddings
from models.alignment.load import fit_tokenizer
from models.alignment.teacher import plain
from models.architectures.checkpoint import load_model
from models.architectures.token_answers import TokenAnswers
from models.base.device import resolve_device, use_threads
from models.base.interface import Interface
from models.base.quality import BASELINE, Quality
from models.base.task_figures import TaskFigures
from models.data.corpus import Corpus, SplitName
from models.data.held_out import batch_count, evaluation_batches, evaluation_documents
from models.evaluation.baselines import baseline
from models.evaluation.embedding_quality import embedding_validator, judge_embeddings
from models.evaluation.evaluation import RowFigures, collect, joined, quality
from models.evaluation.generation import continuations, prompts
from models.evaluation.harness import run_task
from models.multimodal.exact_match import exact_match
from models.students.vocabulary import VocabularyMap, fit_vocabulary, read_kept, reduce_corpus
from tasks.records.run import StageRecord
from tasks.runtime.shares import Share, in_shares, shares_of
from tasks.runtime.stage_inputs import StageInputs

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")  # a checkpoint may come without


class Measured(NamedTuple):
    """Quality of a model, texts that it writes, and its answers and labels: (2, N) ids of the root's vocabulary."""

    quality: Quality
    samples: list[dict[str, str]]
    answers: NDArray[np.int32]


class _Loaded(NamedTuple):
    """Models by folder, on their device, with the corpus in the ids of the one that is judged, and these ids; None: all."""

    models: dict[str, nn.Module]
    corpus: Corpus
    vocabulary: VocabularyMap | None
    device: torch.device


def _load(record: StageRecord, teachers: Mapping[str, StageRecord], inputs: StageInputs) -> _Loaded:
    vocabulary, device = read_kept(Path(record.folder)), torch.device(resolve_device(inputs.ladder.compute.device))
    corpus, workload = reduce_corpus(inputs.data.corpus(), vocabulary), inputs.ladder.workload
    models: dict[str, nn.Module] = {}
    for folder in dict.fromkeys(known.folder for known in (record, *teachers.values())):
        own = fit_vocabulary(load_model(Path(folder), workload), Path(folder), vocabulary)
        models[folder] = fit_tokenizer(own, Path(folder), corpus).to(device)
    return _Loaded(models, corpus, vocabulary, device)


def row_figures(
    inputs: StageInputs,
    record: StageRecord,
    teachers: Mapping[str, StageRecord],
    precision: str,
    split: SplitName,
    share: Share,
    loaded: _Loaded | None = None,
) -> RowFigures:
    """Figures of the rows of one share of the held-out batches."""
    models, corpus, _, device = loaded or _load(record, teachers, inputs)
    evaluation = inputs.ladder.evaluation
    batches = evaluation_batches(corpus, split, evaluation.examples, evaluation.batch_size)
    return collect(
        models[record.folder],
        {name: models[teacher.folder] for name, teacher in teachers.items()},
        share.of(batches, batch_count(corpus, split, evaluation.examples, evaluation.batch_size)),
        corpus.interface.output_ids,
        device,
        precision,
    )


def measure(record: StageRecord, teachers: dict[str, StageRecord], inputs: StageInputs, precision: str, split: SplitName) -> Measured:
    """Evaluate a model alone and against its teachers on held-out documents, in its own vocabulary, and generate samples."""
    ladder = inputs.ladder
    use_threads(ladder)
    whole = inputs.data.corpus()
    batches = batch_count(whole, split, ladder.evaluation.examples, ladder.evaluation.batch_size)
    count = 1 if makes_embeddings(ladder.workload) else shares_of(ladder.compute, batches)
    loaded = _load(record, teachers if count == 1 else {}, inputs)
    models, corpus, vocabulary, device = loaded
    if makes_embeddings(ladder.workload):
        judged = judge_embeddings(
            models[record.folder],
            {name: models[teacher.folder] for name, teacher in teachers.items()},
            corpus,
            split,
            ladder.evaluation.examples,
            ladder.evaluation.batch_size,
            device,
            precision,
        )
        return Measured(judged, [], np.empty((2, 0), dtype=np.int32))
    if count == 1:
        columns = row_figures(inputs, record, teachers, precision, split, Share(), loaded)
    else:
        columns = joined(in_shares(row_figures, inputs, count, record, teachers, precision, split, work="evaluation"))
    samples = []
    if ladder.workload == "causal-lm" and ladder.evaluation.samples and not isinstance(models[record.folder], TokenAnswers):
        folder = _tokenizer_folder(Path(record.folder), whole)
        beginnings = prompts(whole, split, ladder.evaluation.samples)
        samples = continuations(
            plain(models[record.folder]), folder, beginnings, ladder.evaluation.sample_tokens, begun=whole.info.completions
        )
    answers = np.stack([columns.predicted, columns.target]).astype(np.int32)
    if vocabulary is not None:
        answers = np.asarray(vocabulary.kept, dtype=np.int32)[answers]
    judged = quality(columns, corpus, split)
    figures = judged.metrics | {f"{BASELINE}{key}": value for key, value in _baseline(whole, split, ladder.evaluation.examples).items()}
    if ladder.workload == "image-text":
        documents = evaluation_documents(corpus, split, ladder.evaluation.examples)
        figures["exact_match"] = exact_match(columns.correct, corpus.split(split), documents)
    if corpus.info.classes:
        figures["distinct_answers"] = float(len(np.unique(columns.predicted)))
    return Measured(judged._replace(metrics=figures), [sample._asdict() for sample in samples], answers)


@lru_cache(maxsize=8)
def _baseline(corpus: Corpus, split: SplitName, examples: int) -> dict[str, float]:
    """Figures of the guess to beat: the same for all models of a run, the vocabulary's size apart."""
    return baseline(corpus, split, examples).metrics


def measure_task(record: StageRecord, task: str | Mapping[str, Any], inputs: StageInputs) -> TaskFigures:
    """Judge a model, with its own tokenizer, by a task of lm-eval."""
    ladder, folder = inputs.ladder, Path(record.folder)
    use_threads(ladder)
    device = resolve_device(ladder.compute.device)
    return run_task(
        load_model(folder, ladder.workload).to(device),
        _tokenizer_folder(folder, inputs.data.corpus()),
        task,
        batch_size=ladder.evaluation.batch_size,
        length=inputs.data.corpus().info.sequence_length,
        device=device,
        limit=ladder.evaluation.task_examples,
    )


def _tokenizer_folder(model: Path, corpus: Corpus) -> Path:
    """The model's own tokenizer, or that of the corpus where a checkpoint came without."""
    folder = model if any((model / name).is_file() for name in TOKENIZER) else corpus.tokenizer_folder
    assert folder is not None
    return folder


def validator(
    corpus: Corpus,
    evaluation: Evaluation,
    interface: Interface,
    device: str,
    precision: str,
    teacher: nn.Module | None = None,
    kind: str = "cosine",
) -> Callable[[nn.Module], dict[str, float]]:
    """A quick validation on a quarter of the held-out examples that the final evaluation uses; of embeddings by those of a teacher."""
    examples = max(evaluation.examples // 4, 1)
    if makes_embeddings(interface.workload):
        assert teacher is not None, "the schema refuses other trainings"
        return embedding_validator(corpus, teacher, examples, evaluation.batch_size, device, precision, kind)

    def validate(model: nn.Module) -> dict[str, float]:
        batches = evaluation_batches(corpus, "valid", examples, evaluation.batch_size)
        columns = collect(model, {}, batches, interface.output_ids, torch.device(device), precision)
        figures = quality(columns, corpus, "valid").metrics
        return {key: figures[key] for key in ("nll", "accuracy")}

    return validate
