"""Attention within the documents of a window: positions, gradients, equality with separate documents, refusal by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, GPT2Config, MambaConfig, Qwen2Config

from conf.errors import UserError
from models.architectures.attention import single_precision_gradient
from models.architectures.packing import check_packing
from models.data.batches import IGNORE, TrainingBatches, document_positions
from models.data.corpus import SPLITS, Corpus
from models.signals.cache import keys_of
from tests.factories import END, corpus_in

DOCUMENTS = [[1, 2, 3], [4, 5, 6, 7, 8], [9, 10]]
SMALL: dict[str, Any] = {"vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "use_cache": False}


@pytest.fixture
def parted(lm_corpus: Callable[..., Corpus]) -> Corpus:
    """Twelve ids and one in a window of the three documents, attention within each."""
    whole = lm_corpus([*DOCUMENTS, [11]], length=12)
    folder = whole.folder / "parted"
    made = corpus_in(folder, "causal-lm", 12, {name: whole.split(name) for name in SPLITS})
    assert made.info.cross_document_attention
    described = (folder / "corpus.json").read_text()
    assert "cross_document_attention" not in described, "the hash of a corpus without it stays"
    (folder / "corpus.json").write_text(described.replace("{", '{"cross_document_attention": false,', 1))
    return Corpus(folder, "hash")


def test_positions_begin_with_the_end_id_before_a_document() -> None:
    offsets = np.array([0, 4, 10, 13, 15])
    assert document_positions(np.arange(12)[None], offsets).tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 5, 0, 1, 2]]
    assert document_positions(np.arange(2, 8)[None], offsets).tolist() == [[0, 0, 1, 2, 3, 4]], "a window may begin within a document"


def test_a_prefix_begins_a_document_and_is_predicted_of_none(lm_corpus: Callable[..., Corpus]) -> None:
    whole = lm_corpus([[90, 1, 2, 3], [90, 4, 5, 6], [90, 7, 8]], length=10)
    described = (whole.folder / "corpus.json").read_text()
    (whole.folder / "corpus.json").write_text(described.replace("{", '{"cross_document_attention": false, "prefix": [90],', 1))
    batch = TrainingBatches(Corpus(whole.folder, "hash"), 1, 0).at(0)
    assert batch.inputs["input_ids"][0].tolist() == [90, 1, 2, 3, END, 90, 4, 5, 6, END]
    assert batch.inputs["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert batch.targets[0].tolist() == [1, 2, 3, END, IGNORE, 4, 5, 6, END, IGNORE]


def test_no_gradient_reaches_an_earlier_document(parted: Corpus, model_for: Callable[..., nn.Module]) -> None:
    batch = TrainingBatches(parted, 1, 0).at(0)
    ids = batch.inputs["input_ids"]
    assert ids[0].tolist() == [1, 2, 3, END, 4, 5, 6, 7, 8, END, 9, 10]
    model = model_for(parted, layers=2)
    check_packing(model)
    embedded = cast(Any, model).get_input_embeddings()(ids).detach().requires_grad_()
    for inputs, reaches in ((batch.inputs, False), ({}, True)):
        more = {name: value for name, value in inputs.items() if name != "input_ids"}
        logits = cast(Any, model)(inputs_embeds=embedded, **more).logits
        losses = nn.functional.cross_entropy(logits[0], batch.targets[0], reduction="none")
        for first, last in ((3, 9), (9, 12)):  # of the second and the third document, their end ids included
            (gradient,) = torch.autograd.grad(losses[first:last].sum(), embedded, retain_graph=True)
            assert bool(gradient[0, :first].any()) == reaches
            assert gradient[0, first:last].any()
            assert not gradient[0, last:].any()


def test_nor_under_the_attention_of_half_precision(parted: Corpus, model_for: Callable[..., nn.Module]) -> None:
    batch, model = TrainingBatches(parted, 1, 0).at(0), model_for(parted, layers=2)
    embedded = cast(Any, model).get_input_embeddings()(batch.inputs["input_ids"]).detach().requires_grad_()
    with single_precision_gradient(model), torch.autocast("cpu", dtype=torch.bfloat16):
        for positions, reaches in ((batch.inputs["position_ids"], False), (None, True)):
            logits = cast(Any, model)(inputs_embeds=embedded, position_ids=positions).logits.float()
            losses = nn.functional.cross_entropy(logits[0], batch.targets[0], reduction="none")
            (gradient,) = torch.autograd.grad(losses[3:9].sum(), embedded)
            assert bool(gradient[0, :3].any()) == reaches


def test_a_document_in_a_window_is_as_one_alone(parted: Corpus, model_for: Callable[..., nn.Module]) -> None:
    batch, model = TrainingBatches(parted, 1, 0).at(0), model_for(parted, layers=2)
    with torch.no_grad():
        packed = cast(Any, model)(**batch.inputs).logits[0, 3:9]
        alone = cast(Any, model)(input_ids=torch.tensor([[END, 4, 5, 6, 7, 8]])).logits[0]
    assert torch.allclose(packed, alone, atol=1e-6)


def test_stored_answers_know_the_positions(parted: Corpus) -> None:
    batch = TrainingBatches(parted, 1, 0).at(0)
    crossing = replace(batch, inputs={"input_ids": batch.inputs["input_ids"]})
    assert keys_of(batch) != keys_of(crossing)


@pytest.mark.parametrize(
    "config", [GPT2Config(vocab_size=258, n_embd=16, n_layer=1, n_head=2, use_cache=False), Qwen2Config(**SMALL, num_key_value_heads=2)]
)
def test_architectures_that_part_documents(config: Any) -> None:
    torch.manual_seed(0)
    check_packing(AutoModelForCausalLM.from_config(config))


def test_others_are_refused_by_name() -> None:
    torch.manual_seed(0)
    mamba = AutoModelForCausalLM.from_config(
        MambaConfig(vocab_size=258, hidden_size=16, num_hidden_layers=1, state_size=4, use_cache=False)
    )
    bert = BertLMHeadModel(BertConfig(**SMALL, intermediate_size=16, is_decoder=True))
    for model in (mamba, bert):
        training = model.training
        with pytest.raises(UserError, match=rf"data\.cross_document_attention: got False; allowed: true for a {type(model).__name__}"):
            check_packing(model)
        assert model.training == training
