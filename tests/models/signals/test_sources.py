"""A live teacher on a processor sees a batch in parts; its answers are those of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from models.data.batches import Batch
from models.signals import sources


def _teacher() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))


def _batch(examples: int) -> Batch:
    ids = torch.arange(examples * 8).view(examples, 8) % 16
    return Batch({"input_ids": ids}, ids, torch.zeros(examples, dtype=torch.int64))


@pytest.mark.parametrize(("rows", "parts"), [(1_000, [7]), (16, [2, 2, 3]), (8, [1] * 7), (1, [1] * 7)])
def test_a_teacher_answers_in_parts_as_it_would_at_once(monkeypatch: pytest.MonkeyPatch, rows: int, parts: list[int]) -> None:
    teacher, seen = _teacher(), []
    source = sources.live(teacher, 16)
    whole = source(_batch(7))
    monkeypatch.setattr(sources, "ROWS", rows)
    forward = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda input_ids: seen.append(len(input_ids)) or forward(input_ids=input_ids))
    torch.testing.assert_close(source(_batch(7)).logits, whole.logits, rtol=1e-6, atol=1e-6)
    assert seen == parts


def test_a_teacher_that_is_watched_sees_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, seen = _teacher(), list[Tensor]()
    source = sources.live(teacher, 16)
    monkeypatch.setattr(sources, "ROWS", 8)
    teacher.get_submodule("model.layers.0").register_forward_hook(lambda _, __, output: seen.append(output))
    source(_batch(7))
    assert [len(each) for each in seen] == [7]
