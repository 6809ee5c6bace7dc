"""Perplexity of answers under a language model, their prompts given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.architectures.configs import positions_of
from models.data import tokenizers
from models.engines.prompts import PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 8  # answers at once, of like length
MOST_LOSS = 700.0  # nats a token, beyond which e^x is no number


def mean_losses(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    chat: bool = False,
    ended: Sequence[bool] | None = None,
) -> list[float]:
    """Mean cross-entropy of each answer's tokens and of its end, in nats a token.

    The end of an answer that the model's positions have no room for is left out, and so is a beginning of its prompt.

    Args:
        model: A causal LM in evaluation mode.
        tokenizer: Its own.
        pairs: Prompts and answers.
        chat: Prompts are messages of a person.
        ended: Whether the end of each answer counts; None: of all.
    """
    encoder, end, most = PromptEncoder(tokenizer), tokenizers.special_ids(tokenizer)[0], positions_of(model)
    rows: list[tuple[list[int], int]] = []  # ids, and how many of them the prompt has
    for (prompt, text), whole in zip(pairs, ended or [True] * len(pairs), strict=True):
        before = encoder.ids([{"role": "user", "content": prompt}] if chat else prompt)
        (found,) = tokenizers.encode(tokenizer, [text])
        after = [*found.tolist(), *([end] if whole or not len(found) else [])]
        if most is not None:
            after = after[: max(most // 2, 1)]
            before = before[-max(most - len(after), 1) :]
        rows.append(([*before, *after], len(before)))
    losses, device = [0.0] * len(rows), next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda place: len(rows[place][0]))
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        for place, loss in zip(places, _batch_losses(model, [rows[place] for place in places], end, device), strict=True):
            losses[place] = loss
    return losses


def perplexities(losses: Sequence[float]) -> list[float]:
    """Perplexity of each mean loss."""
    return np.exp(np.minimum(losses, MOST_LOSS)).tolist()


@torch.inference_mode()
def _batch_losses(model: nn.Module, rows: Sequence[tuple[list[int], int]], pad: int, device: torch.device) -> list[float]:
    """Mean loss of each row's answer; padded on the right, where causal attention does not look."""
    width = max(len(ids) for ids, _ in rows)
    inputs = torch.full((len(rows), width), pad, device=device)
    counted = torch.zeros(len(rows), width, dtype=torch.bool, device=device)
    for place, (ids, before) in enumerate(rows):
        inputs[place, : len(ids)] = torch.tensor(ids, device=device)
        counted[place, before : len(ids)] = True
    logits = cast(Any, model)(input_ids=inputs).logits[:, :-1].float()
    losses = functional.cross_entropy(logits.transpose(1, 2), inputs[:, 1:], reduction="none")
    mask = counted[:, 1:]
    return ((losses * mask).sum(1) / mask.sum(1)).tolist()
