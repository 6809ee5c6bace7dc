"""Scores by document add up to the figures of an evaluation, whatever is left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from models.data.corpus import SPLITS, Corpus, SplitName
from models.data.held_out import evaluation_batches
from models.evaluation.document_scores import document_scores
from models.evaluation.evaluation import collect, quality
from models.evaluation.paired import DocumentScores, without

CPU = torch.device("cpu")
ALL = 2**62


def scored(model: nn.Module, corpus: Corpus, *splits: SplitName, examples: int = ALL) -> DocumentScores:
    return document_scores(model, corpus, splits, examples, 16, CPU, "fp32")


def evaluated(model: nn.Module, corpus: Corpus, split: SplitName = "valid", examples: int = ALL) -> dict[str, float]:
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    batches = evaluation_batches(corpus, split, examples, 16)
    return quality(collect(model, {}, batches, vocabulary, CPU, "fp32"), corpus, split).metrics


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_sums_give_the_figures_of_an_evaluation(
    name: str, request: pytest.FixtureRequest, model_for: Callable[[Corpus], nn.Module]
) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    model = model_for(corpus)
    key = "bits_per_byte" if name == "prose" else "accuracy"
    for examples in (ALL, 4):
        scores = scored(model, corpus, "valid", examples=examples)
        assert scores.score.sum() / scores.weight.sum() == pytest.approx(evaluated(model, corpus, examples=examples)[key], rel=1e-6)
    three = scored(model, corpus, "train", "valid", "test")
    assert len(np.unique(three.document)) == sum(corpus.info.documents.values())
    if name == "prose":
        assert int(three.rows.sum()) == sum(int(corpus.split(split).predicted.sum()) for split in SPLITS)


def test_examples_without_a_label_do_not_count(sentences: Corpus, model_for: Callable[[Corpus], nn.Module]) -> None:
    before = scored(model_for(sentences), sentences, "valid")
    labels = np.array(sentences.split("valid").labels)
    labels[:7] = -1
    np.save(sentences.folder / "valid" / "labels.npy", labels)
    after = scored(model_for(sentences), sentences, "valid")
    first = sum(sentences.info.documents[split] for split in ("train",))
    left = without(before, first + np.arange(7))
    assert after.document.tolist() == left.document.tolist()
    assert after.score.tolist() == left.score.tolist()
