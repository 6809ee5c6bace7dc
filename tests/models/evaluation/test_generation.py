"""Continuations are a function of model, text and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from conf.schema.stage.student import Shape
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data.corpus import Corpus
from models.data.tokenizers import bytes_tokenizer
from models.evaluation.generation import HEAD_TOKENS, PROMPT_TOKENS, continuations, prompts
from tests.factories import corpus_in, split_of

NEW = 12


@pytest.fixture
def corpus(prose: Corpus) -> Corpus:
    bytes_tokenizer().save_pretrained(prose.folder / "tokenizer")
    return prose


@pytest.fixture
def model(corpus: Corpus) -> nn.Module:
    info = corpus.info
    shape = Shape(hidden_size=16, layers=1, heads=2, feed_forward=32)
    torch.manual_seed(0)
    return build(
        config_for(shape, Interface("causal-lm", info.sequence_length, info.vocabulary, info.end_id, info.pad_id)), "causal-lm"
    ).eval()


def folder(corpus: Corpus) -> Path:
    assert corpus.tokenizer_folder
    return corpus.tokenizer_folder


def test_prompts_are_beginnings_of_held_out_documents(corpus: Corpus) -> None:
    found = prompts(corpus, "valid", 3)
    split = corpus.split("valid")
    beginnings = {bytes(split.values[start : start + PROMPT_TOKENS].tolist()).decode() for start in split.offsets[:-1]}
    assert len(set(found)) == 3
    assert set(found) <= beginnings
    assert found == prompts(corpus, "valid", 3)
    assert found[:2] == prompts(corpus, "valid", 2)
    assert len(prompts(corpus, "valid", 100)) == len(split)


def test_no_beginning_comes_twice_and_shared_ones_come_last(tmp_path: Path) -> None:
    licence = [*b"# Licensed to all under the same terms, whole and unchanged"]
    other, twin = [*b"import this and that, then all of the rest"], [*licence[:HEAD_TOKENS], *b"yet another way to go on from here on"]
    documents = [licence, licence, licence, twin, other]
    split = split_of(documents, [-1] * 5, [0] * 5, [len(each) for each in documents])
    corpus = corpus_in(tmp_path / "shared", "causal-lm", 16, {"train": split, "valid": split, "test": split})
    bytes_tokenizer().save_pretrained(corpus.folder / "tokenizer")
    found = prompts(corpus, "valid", 5)
    assert sorted(found) == sorted(bytes(each[:PROMPT_TOKENS]).decode() for each in (licence, twin, other)), "each once"
    assert len({text[:HEAD_TOKENS] for text in found[:2]}) == 2
    assert prompts(corpus, "valid", 2) == found[:2]


def test_the_same_seed_writes_the_same(corpus: Corpus, model: nn.Module) -> None:
    asked = prompts(corpus, "valid", 2)
    before = torch.get_rng_state()
    first = continuations(model, folder(corpus), asked, NEW)
    assert torch.equal(before, torch.get_rng_state())
    assert first == continuations(model, folder(corpus), asked, NEW)
    assert [sample.prompt for sample in first] == asked
    assert first != continuations(model, folder(corpus), asked, NEW, seed=1)


def test_a_continuation_follows_the_model_and_ends_at_the_end_id(corpus: Corpus, model: nn.Module) -> None:
    info = corpus.info
    assert info.end_id is not None
    head = cast(Any, model).get_output_embeddings()
    steps = iter([ord("a"), ord("b"), info.end_id, ord("c")])

    def speak(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        said = torch.full_like(output, -1e4)
        said[..., next(steps)] = 1e4
        return said

    with_hook = head.register_forward_hook(speak)
    sample = continuations(model, folder(corpus), ["the quick"], NEW)[0]
    with_hook.remove()
    assert sample.text == "ab"
    assert next(steps) == ord("c"), "it ended with the end id"
