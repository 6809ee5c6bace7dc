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
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.baselines import baseline
from models.evaluation.embedding_quality import embedding_validator, judge_embeddings
from models.evaluation.evaluation import collect, quality
from models.evaluation.generation import continuations, prompts
from models.evaluation.harness import run_task
from models.multimodal.exact_match import exact_match
from models.students.vocabulary import fit_vocabulary, read_kept, reduce_corpus
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")  # a checkpoint may come without


class Measured(NamedTuple):
    """Quality of a model, texts that it writes, and its answers and labels: (2, N) ids of the root's vocabulary."""

    quality: Quality
    samples: list[dict[str, str]]
    answers: NDArray[np.int32]


def measure(record: StageRecord, teachers: dict[str, StageRecord], inputs: StageInputs, precision: str, split: SplitName) -> Measured:
    """Evaluate a model alone and against its teachers on held-out documents, in its own vocabulary, and generate samples."""
    ladder = inputs.ladder
    use_threads(ladder)
    vocabulary, device = read_kept(Path(record.folder)), torch.device(resolve_device(ladder.compute.device))
    whole = inputs.data.corpus()
    corpus = reduce_corpus(whole, vocabulary)
    models: dict[str, nn.Module] = {}
    for known in (record, *teachers.values()):
        if known.folder not in models:
            place = Path(known.folder)
            own = fit_vocabulary(load_model(place, ladder.workload), place, vocabulary)
            models[known.folder] = fit_tokenizer(own, place, corpus).to(device)
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
    columns = collect(
        models[record.folder],
        {name: models[teacher.folder] for name, teacher in teachers.items()},
        evaluation_batches(corpus, split, ladder.evaluation.examples, ladder.evaluation.batch_size),
        corpus.interface.output_ids,
        device,
        precision,
    )
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
