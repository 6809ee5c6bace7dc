import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema.stage.training import Training
from models.base.quality import Quality, retention
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches
from models.evaluation.evaluation import RowFigures, collect, expected_calibration_error, macro_f1, quality
from models.training.loop import Plan, train

Make = Callable[..., nn.Module]
CPU = torch.device("cpu")


def judge(
    model: nn.Module, corpus: Corpus, batch_size: int = 16, precision: str = "fp32", **teachers: nn.Module
) -> tuple[RowFigures, Quality]:
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    columns = collect(model, teachers, evaluation_batches(corpus, "valid", 10_000, batch_size), vocabulary, CPU, precision)
    return columns, quality(columns, corpus, "valid")


class Fixed(nn.Module):
    """A causal LM whose logits are a table: `table[id]` predicts what follows `id`."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__()
        self.table = torch.tensor(table)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


def columns_of(nll: Iterable[float], correct: Iterable[float], slices: Iterable[int], **more) -> RowFigures:
    count = len(list(nll))
    fields = {"predicted": np.zeros(count, int), "target": np.zeros(count, int), "confidence": np.ones(count), "against": {}} | more
    return RowFigures(nll=np.array(nll), correct=np.array(correct), slice=np.array(slices), **fields)


def test_language_figures_by_hand(lm_corpus: Callable[..., Corpus]) -> None:
    # Two documents, "01" and "0": with the end id 256, five ids are predicted for three bytes.
    corpus = lm_corpus([[0, 1], [0]], length=8, slices=[0, 1])
    table = torch.full((258, 258), -torch.inf)
    table[256, [0, 1]] = torch.tensor([0.75, 0.25]).log()  # a document begins: P(0) = 3/4
    table[0, [1, 256]] = torch.tensor([0.5, 0.5]).log()
    table[1, [0, 256]] = torch.tensor([0.9, 0.1]).log()
    columns, figures = judge(Fixed(table.tolist()), corpus)
    nats = [-math.log(p) for p in (0.75, 0.5, 0.1, 0.75, 0.5)]
    assert columns.nll.tolist() == pytest.approx(nats)
    assert columns.target.tolist() == [0, 1, 256, 0, 256]
    # Of two equally likely ids the first is predicted.
    assert columns.correct.tolist() == [1, 1, 0, 1, 0]
    assert columns.confidence.tolist() == pytest.approx([0.75, 0.5, 0.9, 0.75, 0.5])
    assert columns.slice.tolist() == [0, 0, 0, 1, 1]
    mean = sum(nats) / 5
    assert figures.metrics == pytest.approx(
        {"nll": mean, "accuracy": 0.6, "bits_per_byte": sum(nats) / math.log(2) / 3, "perplexity": math.exp(mean)}
    )
    first, second = figures.slices["slice 0"], figures.slices["slice 1"]
    assert (first["count"], second["count"]) == (3, 2)
    assert first["bits_per_byte"] == pytest.approx(sum(nats[:3]) / math.log(2) / 2)
    assert second["bits_per_byte"] == pytest.approx(sum(nats[3:]) / math.log(2) / 1)


def test_divergence_and_agreement_by_hand(lm_corpus: Callable[..., Corpus]) -> None:
    corpus = lm_corpus([[0]], length=8)
    student, teacher = torch.full((258, 258), -torch.inf), torch.full((258, 258), -torch.inf)
    student[256, [0, 1]], teacher[256, [0, 1]] = torch.tensor([0.25, 0.75]).log(), torch.tensor([0.9, 0.1]).log()
    student[0, [1, 256]], teacher[0, [1, 256]] = torch.tensor([0.2, 0.8]).log(), torch.tensor([0.4, 0.6]).log()
    _, figures = judge(Fixed(student.tolist()), corpus, parent=Fixed(teacher.tolist()))
    first = 0.9 * math.log(0.9 / 0.25) + 0.1 * math.log(0.1 / 0.75)
    second = 0.4 * math.log(0.4 / 0.2) + 0.6 * math.log(0.6 / 0.8)
    assert figures.metrics["kl_parent"] == pytest.approx((first + second) / 2)
    assert figures.metrics["agreement_parent"] == 0.5
    assert figures.metrics["parent_nll"] == pytest.approx((-math.log(0.9) - math.log(0.6)) / 2)
    assert (figures.metrics["parent_accuracy"], figures.metrics["accuracy"]) == (1.0, 0.5)


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary(prose: Corpus) -> None:
    _, figures = judge(Fixed([[0.0] * 258] * 258), prose)
    assert figures.metrics["nll"] == pytest.approx(math.log(258), rel=1e-6)
    assert figures.metrics["perplexity"] == pytest.approx(258, rel=1e-5)
    per_byte = prose.info.tokens["valid"] / int(prose.split("valid").sizes.sum())
    assert figures.metrics["bits_per_byte"] == pytest.approx(math.log2(258) * per_byte, rel=1e-6)


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_a_model_agrees_with_itself(name: str, request: pytest.FixtureRequest, model_for: Make) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    model, twin = model_for(corpus), model_for(corpus)
    _, figures = judge(model, corpus, parent=twin, root=model)
    for teacher in ("parent", "root"):
        assert figures.metrics[f"agreement_{teacher}"] == 1.0
        assert figures.metrics[f"kl_{teacher}"] == 0.0
        assert figures.metrics[f"{teacher}_nll"] == figures.metrics["nll"]
        assert figures.metrics[f"{teacher}_accuracy"] == figures.metrics["accuracy"]
        assert retention(corpus.info.workload, figures.metrics, teacher) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_figures_against_a_teacher_are_the_teachers_own(
    name: str, request: pytest.FixtureRequest, model_for: Make, training: Callable[..., Training]
) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    student, teacher = model_for(corpus), model_for(corpus, seed=1, hidden=32)
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    train(teacher, TrainingBatches(corpus, 8, 0), Plan(training(steps=20), None, 0, vocabulary))
    columns, figures = judge(student, corpus, parent=teacher)
    theirs, alone = judge(teacher, corpus)
    assert figures.metrics["parent_nll"] == pytest.approx(alone.metrics["nll"])
    assert figures.metrics["parent_accuracy"] == pytest.approx(alone.metrics["accuracy"])
    assert figures.metrics["agreement_parent"] == pytest.approx((columns.predicted == theirs.predicted).mean())
    assert figures.metrics["kl_parent"] > 0
    workload = corpus.info.workload
    expected = figures.metrics["accuracy"] / alone.metrics["accuracy"]
    if workload == "causal-lm":
        expected = alone.metrics["perplexity"] / figures.metrics["perplexity"]
    assert retention(workload, figures.metrics, "parent") == pytest.approx(expected)


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_the_size_of_an_evaluation_batch_changes_no_figure(name: str, request: pytest.FixtureRequest, model_for: Make) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    student, teacher = model_for(corpus), model_for(corpus, seed=1, hidden=32)
    _, one = judge(student, corpus, batch_size=3, parent=teacher)
    _, other = judge(student, corpus, batch_size=1000, parent=teacher)
    assert one.metrics == pytest.approx(other.metrics, rel=1e-5, abs=1e-7)
    assert one.slices.keys() == other.slices.keys()
    for key in one.slices:
        assert one.slices[key] == pytest.approx(other.slices[key], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_slices_add_up_to_the_whole(name: str, request: pytest.FixtureRequest, model_for: Make, lm_corpus: Callable[..., Corpus]) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    if name == "prose":
        documents = [list(b"a slice of its own, " * n) for n in (1, 2, 3, 4, 1)]
        corpus = lm_corpus(documents, length=16, slices=[0, 1, 2, 1, 0])
    columns, figures = judge(model_for(corpus), corpus, parent=model_for(corpus, seed=1))
    assert len(figures.slices) > 1
    total = sum(values["count"] for values in figures.slices.values())
    assert total == len(columns.nll)
    for key in ("nll", "accuracy", "agreement_parent", "kl_parent", "parent_nll", "parent_accuracy"):
        mean = sum(values[key] * values["count"] for values in figures.slices.values()) / total
        assert mean == pytest.approx(figures.metrics[key], rel=1e-9)
    if name == "prose":
        split = corpus.split("valid")
        sizes = {f"slice {i}": int(split.sizes[split.slices == i].sum()) for i in range(3)}
        bits = sum(values["bits_per_byte"] * sizes[key] for key, values in figures.slices.items())
        assert bits / sum(sizes.values()) == pytest.approx(figures.metrics["bits_per_byte"], rel=1e-9)


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.50 and 0.52 share one (0.467 to 0.533), 0.91 has its own, 1.0 falls into the last.
    confidence, correct = np.array([0.50, 0.52, 0.91, 1.0]), np.array([1.0, 0.0, 1.0, 0.0])
    expected = (abs(0.51 - 0.5) * 2 + abs(0.91 - 1.0) + abs(1.0 - 0.0)) / 4
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)
    assert expected_calibration_error(np.array([0.8] * 5), np.array([1.0, 1.0, 1.0, 1.0, 0.0])) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(np.ones(3), np.zeros(3)) == 1.0


def test_macro_f1_by_hand() -> None:
    target, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 3])
    # Class 0: tp 2, fp 1, fn 1. Class 1: tp 1, fp 1, fn 1. Class 2: never right. Class 3 occurs in no label.
    assert macro_f1(predicted, target) == pytest.approx((2 * 2 / 6 + 2 * 1 / 4 + 0) / 3)
    assert macro_f1(target, target) == 1.0


def test_macro_f1_is_that_of_scikit_learn_to_the_last_bit() -> None:
    from sklearn.metrics import f1_score

    zero: Any = 0  # the library's annotation says str alone
    for seed in range(40):
        generator = np.random.default_rng(seed)
        predicted, target = generator.integers(0, 12, 60), generator.integers(3, 9, 60)
        theirs = f1_score(target, predicted, average="macro", labels=np.unique(target), zero_division=zero)
        assert macro_f1(predicted, target) == theirs


def test_classification_figures_by_hand(images: Corpus) -> None:
    columns = columns_of(
        [0.1, 0.2, 0.6],
        [1.0, 1.0, 0.0],
        [0, 0, 1],
        predicted=np.array([0, 1, 1]),
        target=np.array([0, 1, 2]),
        confidence=np.array([0.9, 0.8, 0.6]),
    )
    figures = quality(columns, images, "valid")
    f1 = (1 + 2 / 3 + 0) / 3
    ece = (0.1 + 0.2 + 0.6) / 3
    assert figures.metrics == pytest.approx({"nll": 0.3, "accuracy": 2 / 3, "macro_f1": f1, "ece": ece})
    assert figures.slices["slice 0"] == pytest.approx({"count": 2, "nll": 0.15, "accuracy": 1, "macro_f1": 1, "ece": 0.15})


def test_retention_is_a_ratio_of_accuracy_or_of_perplexity() -> None:
    assert retention("image-classification", {"accuracy": 0.6, "parent_accuracy": 0.8}, "parent") == pytest.approx(0.75)
    assert retention("sequence-classification", {"accuracy": 0.9, "root_accuracy": 0.6}, "root") == pytest.approx(1.5)
    figures = {"nll": math.log(20.0), "parent_nll": math.log(10.0), "root_nll": math.log(30.0), "accuracy": 0.1}
    assert retention("causal-lm", figures, "parent") == pytest.approx(0.5)
    assert retention("causal-lm", figures, "root") == pytest.approx(1.5)


def test_a_padded_vocabulary_is_cut_before_anything_is_measured(prose: Corpus) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(258, 258, generator=generator)
    padded = torch.cat([table, torch.full((258, 42), 50.0)], dim=1)  # the surplus ids are the likeliest
    _, narrow = judge(Fixed(table.tolist()), prose)
    _, wide = judge(Fixed(padded.tolist()), prose, parent=Fixed(table.tolist()))
    assert wide.metrics == pytest.approx(narrow.metrics | {k: v for k, v in wide.metrics.items() if "parent" in k})
    assert wide.metrics["kl_parent"] == 0.0


def test_bf16_is_close_and_judged_in_full_precision(prose: Corpus, model_for: Make) -> None:
    model = model_for(prose)
    columns, half = judge(model, prose, precision="bf16")
    _, full = judge(model, prose)
    assert half.metrics["nll"] != full.metrics["nll"]
    assert half.metrics["nll"] == pytest.approx(full.metrics["nll"], rel=1e-2)
    assert columns.nll.dtype == np.float32


def test_rows_judged_a_few_at_a_time_give_the_same_figures(prose: Corpus, model_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, teacher = model_for(prose), model_for(prose, seed=1)
    whole = judge(model, prose, root=teacher)[0]
    monkeypatch.setattr("models.evaluation.evaluation.CHUNK_ELEMENTS", 7 * 258)
    parts, half = judge(model, prose, root=teacher)[0], judge(model, prose, precision="bf16", root=teacher)[0]
    assert np.array_equal(parts.predicted, whole.predicted)
    for key in ("nll", "kl"):
        assert parts.against["root"][key] == pytest.approx(whole.against["root"][key], rel=1e-4, abs=1e-6)
        assert half.against["root"][key].mean() == pytest.approx(whole.against["root"][key].mean(), rel=0.05)
        assert half.against["root"][key].dtype == np.float32
    assert whole.against["root"]["kl"].min() > 0


def test_evaluation_leaves_no_trace_in_the_model(sentences: Corpus, model_for: Make) -> None:
    model = model_for(sentences).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    judge(model, sentences)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_padding_of_an_evaluation_batch_is_not_judged(lm_corpus: Callable[..., Corpus], model_for: Make) -> None:
    corpus = lm_corpus([[1] * 3, [2] * 11], length=8)
    batches: list[Batch] = list(evaluation_batches(corpus, "valid", 100, 100))
    columns, _ = judge(model_for(corpus), corpus)
    assert len(columns.nll) == sum(batch.valid for batch in batches) == 4 + 12
