"""The rows of an audit equal those of the evaluation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from conf.errors import UserError
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.audit_figures import overall
from models.evaluation.audit_rows import AuditRows, audit_rows
from models.evaluation.bootstrap import Limits
from models.evaluation.evaluation import collect, quality

Make = Callable[..., nn.Module]
CPU = torch.device("cpu")


def ask(corpus: Corpus, models: dict[str, nn.Module], batch_size: int = 4, chunk: int = 2**20, precision: str = "fp32") -> AuditRows:
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    batches = evaluation_batches(corpus, "valid", 1000, batch_size)
    return audit_rows(models, batches, evaluation_documents(corpus, "valid", 1000), vocabulary, CPU, precision, chunk)


def three(corpus: Corpus, model_for: Make) -> dict[str, nn.Module]:
    return {name: model_for(corpus, seed=seed) for seed, name in enumerate(("student", "parent", "root"))}


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_audit_rows_equal_the_rows_of_the_evaluation(name: str, model_for: Make, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    models = three(corpus, model_for)
    rows = ask(corpus, models)
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    teachers = {key: models[key] for key in ("parent", "root")}
    columns = collect(models["student"], teachers, evaluation_batches(corpus, "valid", 1000, 4), vocabulary, CPU, "fp32")
    assert rows.target.tolist() == columns.target.tolist()
    assert rows.slice.tolist() == columns.slice.tolist()
    assert rows.predictions["student"].predicted.tolist() == columns.predicted.tolist()
    for ours, theirs in ((rows.predictions["student"].nll, columns.nll), (rows.predictions["student"].confidence, columns.confidence)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for teacher in teachers:
        np.testing.assert_allclose(rows.comparisons[teacher].kl, columns.against[teacher]["kl"], rtol=1e-3, atol=1e-5)
        agree = rows.predictions[teacher].predicted == rows.predictions["student"].predicted
        assert agree.tolist() == columns.against[teacher]["agreement"].astype(bool).tolist()
    figures, known = overall(rows, (0.7,), Limits(2, 2), 100), quality(columns, corpus, "valid").metrics
    assert figures["nll"].value == pytest.approx(known["nll"], rel=1e-4)
    assert figures["parent.kl"].value == pytest.approx(known["kl_parent"], rel=1e-3)
    if "ece" in known:
        assert figures["ece"].value == pytest.approx(known["ece"], abs=1e-5)


def test_the_size_of_chunks_changes_nothing(prose: Corpus, model_for: Make) -> None:
    models = three(prose, model_for)
    whole, parts = ask(prose, models, batch_size=6), ask(prose, models, batch_size=2, chunk=16 * 258)
    for name in ("target", "slice", "example", "position", "document"):
        assert getattr(whole, name).tolist() == getattr(parts, name).tolist()
    for model in models:
        np.testing.assert_allclose(whole.predictions[model].nll, parts.predictions[model].nll, rtol=1e-4)
        np.testing.assert_allclose(whole.predictions[model].brier, parts.predictions[model].brier, atol=1e-5)


def test_brier_and_the_teachers_probability_by_hand(images: Corpus, model_for: Make) -> None:
    models = three(images, model_for)
    rows = ask(images, models)
    batch = next(iter(evaluation_batches(images, "valid", 1000, 1000)))
    with torch.no_grad():
        p = {name: model(**batch.inputs).logits.softmax(-1) for name, model in models.items()}
    onehot = nn.functional.one_hot(batch.targets, 3)
    np.testing.assert_allclose(rows.predictions["student"].brier, (p["student"] - onehot).square().sum(-1).numpy(), rtol=1e-4)
    chosen = p["student"].argmax(-1)
    np.testing.assert_allclose(rows.comparisons["root"].theirs, p["root"].gather(-1, chosen[:, None])[:, 0].numpy(), rtol=1e-4)


def test_windows_of_a_document_stay_together(lm_corpus: Callable[..., Corpus], model_for: Make) -> None:
    corpus = lm_corpus([[1] * 20, [2] * 5, [3] * 11], length=8)
    rows = ask(corpus, {"student": model_for(corpus), "parent": model_for(corpus, seed=1)})
    # 21, 6 and 12 ids with the end id: three windows, one and two.
    assert [int((rows.document == document).sum()) for document in range(3)] == [21, 6, 12]
    assert [sorted(set(rows.example[rows.document == document].tolist())) for document in range(3)] == [[0, 1, 2], [3], [4, 5]]
    assert rows.position[rows.document == 1].tolist() == list(range(6))


def test_one_model_under_two_names_runs_once(images: Corpus, model_for: Make) -> None:
    student, teacher = model_for(images), model_for(images, seed=1)
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    rows = ask(images, {"student": student, "parent": teacher, "root": teacher}, batch_size=1000)
    assert len(calls) == 1
    assert rows.predictions["parent"].predicted.tolist() == rows.predictions["root"].predicted.tolist()


def test_an_example_without_a_label_is_told(images: Corpus, model_for: Make) -> None:
    labels = np.load(images.folder / "valid" / "labels.npy")
    labels[0] = -1
    np.save(images.folder / "valid" / "labels.npy", labels)
    with pytest.raises(UserError, match=r"^audit\.enabled: got True; allowed: false, where held-out examples have no label"):
        ask(images, {"student": model_for(images), "parent": model_for(images, seed=1)})


def test_bf16_is_close(prose: Corpus, model_for: Make) -> None:
    exact, rounded = ask(prose, three(prose, model_for)), ask(prose, three(prose, model_for), precision="bf16")
    assert exact.predictions["student"].nll.mean() == pytest.approx(rounded.predictions["student"].nll.mean(), abs=0.01)
    np.testing.assert_allclose(exact.predictions["student"].nll, rounded.predictions["student"].nll, atol=0.3)
