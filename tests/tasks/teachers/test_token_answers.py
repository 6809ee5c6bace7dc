"""Top-k answers of a language model from a file, in place of a teacher."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import processors

from conf.errors import LadderError
from conf.schema.stage.student import Shape
from models.architectures.shapes import config_for
from models.architectures.token_answers import spread_evenly
from models.data import tokenizers
from models.data.batches import TrainingBatches
from models.data.held_out import evaluation_batches
from models.evaluation.evaluation import collect
from models.losses.loss import SparseSignal
from models.signals.codec import dense
from models.signals.sources import live
from models.students.initialise import random_model
from tasks.teachers.teacher import prepare_teacher
from tests.factories import inputs_of
from tests.tasks.teachers.token_files import (
    END,
    LENGTH,
    SHAPE,
    TEXTS,
    VOCABULARY,
    folder_of,
    ladder_of,
    likely,
    log_probs,
    refused,
    stored,
    write,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


def test_every_position_has_the_answer_of_its_document_in_training_and_evaluation(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    corpus = inputs.data.corpus()
    assert (corpus.info.end_id, corpus.info.vocabulary) == (END, VOCABULARY)
    model = random_model(config_for(Shape.model_validate({**SHAPE, "hidden_size": 32}), corpus.interface), "causal-lm", 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights give every id the same probability
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    every = {text: log_probs(model, text) for text in TEXTS}
    assert min(values.std() for values in every.values()) > 0.5
    split = corpus.split("valid")
    documents = [bytes(split.values[a : b - 1].tolist()).decode() for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
    labels = [[*text.encode(), END] for text in documents]
    assert max(len(each) for each in labels) > LENGTH  # some have several windows
    for listed in (VOCABULARY, 5):
        top = {text: np.argsort(-values, axis=1)[:, :listed] for text, values in every.items()}
        chosen = {text: np.take_along_axis(every[text], top[text], axis=1) for text in TEXTS}
        write(folder, [top[text].tolist() for text in TEXTS], [chosen[text].tolist() for text in TEXTS])
        answers = stored(prepare_teacher(inputs))
        found = collect(answers, {}, evaluation_batches(corpus, "valid", 200, 4), VOCABULARY, torch.device("cpu"), "fp32")
        expected: list[float] = []
        for text, wanted in zip(documents, labels, strict=True):
            rest = np.log((1 - np.exp(chosen[text]).sum(1)).clip(1e-9) / max(VOCABULARY - listed, 1))
            expected += [-(every[text][i, label] if label in top[text][i] else rest[i]) for i, label in enumerate(wanted)]
        assert np.allclose(found.nll, expected, atol=1e-4)
        packed = TrainingBatches(corpus, 4, 0).at(0)
        signal = live(answers, VOCABULARY)(packed)
        assert isinstance(signal, SparseSignal)
        given = dense(signal, VOCABULARY).log().reshape(4, LENGTH, VOCABULARY)
        checked = 0
        for window, targets, rows in zip(packed.inputs["input_ids"].tolist(), packed.targets.tolist(), given, strict=True):
            begins = [*(place for place, token in enumerate(window) if token == END), LENGTH]
            for first, after in pairwise(begins):  # documents that begin within the window are known by what follows
                text = next(t for t in TEXTS if [*t.encode(), END][: after - first] == targets[first:after])
                ids = torch.from_numpy(top[text][: after - first])
                assert torch.allclose(rows[first:after].gather(1, ids), torch.from_numpy(chosen[text][: after - first]), atol=1e-4)
                checked += 1
        assert checked > 3


def test_a_teachers_tokenizer_that_begins_texts(folder: Path) -> None:
    tokenizer = tokenizers.train_bpe(TEXTS, 280)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    begin, (end, _) = tokenizer.convert_tokens_to_ids("<s>"), tokenizers.special_ids(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    tokenizers.save(tokenizer, folder / "tokenizer")
    ladder = ladder_of(tokenizer={"kind": "teacher"}, teacher={"tokenizer": "tokenizer"})
    corpus = (inputs := inputs_of(ladder, folder)).data.corpus()
    assert corpus.info.prefix == (begin,)
    ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in TEXTS]
    sure = {len(each): np.log(np.linspace(0.2, 0.9, len(each))) for each in ids}  # another probability at each position
    write(folder, [[[token] for token in each] for each in ids], [sure[len(each)][:, None].tolist() for each in ids])
    answers = stored(prepare_teacher(inputs))
    found = collect(answers, {}, evaluation_batches(corpus, "test", 200, 4), answers.config.vocab_size, torch.device("cpu"), "fp32")
    lengths = np.diff(corpus.split("test").offsets) - 1
    assert np.allclose(found.nll, -np.concatenate([sure[length] for length in lengths]), atol=1e-4)
    packed = TrainingBatches(corpus, 4, 0).at(0)
    signal = live(answers, answers.config.vocab_size)(packed)
    assert isinstance(signal, SparseSignal)
    targets = packed.targets.flatten()
    assert signal.ids[:, 0].tolist() == targets.tolist()
    begins = targets == begin
    assert begins.any()
    assert (signal.log_probs[begins] > -1e-6).all()  # what begins a document is sure, and no row of the file says so
    assert (signal.log_probs[~begins] < -0.1).all()


def test_a_label_that_is_not_listed_has_an_even_share_of_the_rest() -> None:
    ids, log_p = torch.tensor([[3, 1], [2, 2]]), torch.tensor([[0.5, 0.3], [0.6, 0.0]]).log()
    found = spread_evenly(ids, log_p, torch.tensor([0.2, 0.4]).log(), 5).exp()
    assert found.tolist() == [pytest.approx([0.2 / 3, 0.3, 0.2 / 3, 0.5, 0.2 / 3]), pytest.approx([0.1, 0.1, 0.6, 0.1, 0.1])]


def test_what_does_not_fit_the_data_is_refused_by_its_row(folder: Path) -> None:
    ids, logprobs = likely()
    write(folder, ids[:-2], logprobs[:-2])
    assert f"without an answer to 2 of {len(TEXTS)} documents" in (said := refused(folder))
    assert "begins with '8: several of" in said
    row = len(TEXTS) - 1  # of the first text, as `write` turns them round

    def changed(position: int, new_ids: list[int], new_log_p: list[float]) -> str:
        ids, logprobs = likely()
        ids[1][position], logprobs[1][position] = new_ids, new_log_p
        write(folder, ids, logprobs)
        return refused(folder)

    assert f"row {row}: an id outside 0 to 257" in changed(2, [300, 1], [-1.0, -2.0])
    assert f"row {row}: an id twice, at position 3" in changed(2, [7, 7], [-1.0, -2.0])
    assert "add up to more than 1, at position 1" in changed(0, [7, 8], [0.0, 0.0])
    assert "not finite" in changed(0, [7, 8], [-1.0, float("nan")])
    assert "0 ids at position 2" in changed(1, [], [])
    assert "of unequal lengths" in changed(1, [7, 8], [-1.0])
    write(folder, [each[:-1] for each in ids], [each[:-1] for each in logprobs])
    assert "one for each of the" in (said := refused(folder))
    assert "and one for the end id" in said
    pq.write_table(pa.table({"text": TEXTS, "ids": [1] * len(TEXTS), "logprobs": logprobs}), folder / "answers.parquet")
    assert "whose column ids is int64" in refused(folder)
    assert "without the columns top'; allowed: columns: text, ids, logprobs" in refused(folder, teacher={"ids": "top"})


def test_positions_may_list_different_numbers_of_ids(folder: Path) -> None:
    ids, logprobs = likely()
    ids[0][1], logprobs[0][1] = [7, 8, 9], [-2.0, -2.0, -2.0]
    ids[0][2], logprobs[0][2] = [7], [0.0]
    write(folder, ids, logprobs)
    table = stored(prepare_teacher(inputs_of(ladder_of(), folder))).table
    assert table["ids"].shape[1] == 3
    single = (table["log_p"] > -torch.inf).sum(1) == 1
    assert single.any()
    assert torch.allclose(table["log_residual"][single].exp(), torch.tensor(1e-7))
    sums = table["log_p"].exp().sum(1) + table["log_residual"].exp()
    assert torch.allclose(sums, torch.ones(()), atol=1e-5)


def test_answers_to_other_data_are_noticed(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    answers, batch = stored(prepare_teacher(inputs)), TrainingBatches(inputs.data.corpus(), 4, 0).at(0).part(1, 2)
    assert batch.places is not None
    assert answers.answers(batch.places, batch.targets)[0][:, 0].tolist() == batch.targets.flatten().tolist()
    with pytest.raises(LadderError, match=r"the stored answers are to other data: [0-9]+ of 32 ids of a batch differ"):
        answers.answers(batch.places + 1, batch.targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": {"signals": {"source": "cached"}}}, "signals.kind: got 'sampled'; allowed: top-k, below answers"),
        ({"stage": {"signals": {"source": "cached", "kind": "full"}}}, "signals.kind: got 'full'; allowed: top-k, below answers"),
        ({"stage": {"objective": {"kind": "dkd"}}}, "allowed: forward-kl, reverse-kl, .* below answers"),
        ({"stage": {"gate": {"policy": "insert"}}}, "allowed: any other, below answers"),
        ({"teacher": {"classes": ["a", "b"]}}, "allowed: none, for causal-lm"),
        ({"evaluation": {"tasks": ["some"]}}, "which no task of lm-eval can ask"),
        ({"evaluation": {"also": {"other": {"source": "python-stdlib"}}}}, "which are to the ladder's data alone"),
        ({"tokenizer": {"kind": "teacher"}}, r"answers with teacher\.tokenizer, bring a tokenizer"),
        ({"student": {"vocabulary": "used"}, "tokenizer": {"kind": "bpe", "vocabulary": 300}}, "whose ids are those of the data"),
    ],
)
def test_what_needs_a_model_is_refused_with_the_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ladder_of(**changes)
