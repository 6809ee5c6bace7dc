"""Guesses that read no input, by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.data.corpus import Corpus
from models.evaluation.baselines import baseline, held_out_targets, training_counts
from tests.factories import END, corpus_in, split_of


def classes(folder: Path, train: list[int], valid: list[int]) -> Corpus:
    parts = {name: split_of([[65, END]] * len(labels), labels, [0] * len(labels), [1] * len(labels)) for name, labels in
             {"train": train, "valid": valid, "test": valid}.items()}  # fmt: skip
    return corpus_in(folder, "sequence-classification", 4, parts, classes=3)


def test_majority_by_hand(tmp_path: Path) -> None:
    corpus = classes(tmp_path / "c", train=[0, 0, 0, 1], valid=[1, 1, 0])
    found = baseline(corpus)
    # Frequencies with one added to each of three classes: 4/7, 2/7, 1/7.
    assert found.name == "majority class"
    assert found.metrics["nll"] == pytest.approx(-(2 * math.log(2 / 7) + math.log(4 / 7)) / 3)
    # The best constant answer on these rows is class 1, though class 0 is the most frequent one in training.
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert found.metrics["macro_f1"] == pytest.approx((0.8 + 0.0) / 2)
    assert found.rows == 3


def test_rows_without_a_label_do_not_count(tmp_path: Path) -> None:
    assert training_counts(classes(tmp_path / "c", train=[0, -1, 2, -1], valid=[0, 1])).tolist() == [1, 0, 1]


def test_unigram_by_hand(lm_corpus: Callable[..., Corpus]) -> None:
    corpus = lm_corpus([[0, 0, 1]], [[0, 1]], length=8)  # the end id 256 counts as any other
    total = 4 + 258
    found = baseline(corpus)
    assert found.name == "unigram"
    assert found.metrics["nll"] == pytest.approx(-(math.log(3 / total) + 2 * math.log(2 / total)) / 3)
    assert found.metrics["bits_per_byte"] == pytest.approx(found.metrics["nll"] / math.log(2) * 3 / 2)
    assert found.metrics["perplexity"] == pytest.approx(math.exp(found.metrics["nll"]))


def test_the_rows_are_those_that_models_are_judged_on(sentences: Corpus) -> None:
    few = held_out_targets(sentences, "valid", 10)
    assert len(few) == 10
    assert baseline(sentences, "valid", 10).metrics["accuracy"] == np.bincount(few).max() / 10
