"""Mean losses of answers equal those of transformers' own loss, whatever stands in the batch beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.architectures.checkpoint import load_model
from models.data import tokenizers
from models.generation.perplexity import mean_losses, perplexities
from tests.published import published_folder

PAIRS = [("say a", " word"), ("", "x"), ("a much longer prompt than the other ones", " and an answer"), ("b", "")]


def test_losses_of_answers(tmp_path: Path) -> None:
    folder = published_folder(tmp_path / "model", "causal-lm")
    model, tokenizer = load_model(folder, "causal-lm").eval().requires_grad_(False), tokenizers.load(folder)
    found = mean_losses(model, tokenizer, PAIRS)
    for (prompt, text), loss in zip(PAIRS, found, strict=True):
        before = list(prompt.encode()) or [256]
        ids = torch.tensor([[*before, *text.encode(), 256]])
        labels = ids.clone()
        labels[:, : len(before)] = -100
        assert loss == pytest.approx(float(model(input_ids=ids, labels=labels).loss), rel=1e-4)
    assert mean_losses(model, tokenizer, PAIRS[::-1]) == pytest.approx(found[::-1], rel=1e-4)


def test_an_answer_longer_than_the_positions_is_cut(tmp_path: Path) -> None:
    folder = published_folder(tmp_path / "model", "causal-lm", length=64)
    model = load_model(folder, "causal-lm").eval()
    (loss,) = mean_losses(model, tokenizers.load(folder), [("p" * 3000, "t" * 3000)])
    assert 0 < loss < 100


def test_a_perplexity_is_finite() -> None:
    assert perplexities([0.0, 1e9])[0] == 1
    assert perplexities([1e9])[0] < float("inf")
