"""Random first weights by which every answer is equally likely.

Two halves of the state before the head are alike, and the head weighs them with opposite signs, so that every logit is 0 before the first
step: the loss is ln V, whatever the width and the vocabulary. Unlike a small head or one of zeros, this leaves weights and gradients their
size, and the first step parts the halves (measured in docs/performance.md). Without it a tied head answers each id with that id itself, by
a logit of hidden_size^1/2.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

# Family -> weights, and the dimension along which their halves become those of the state before the head: branches begin at 0.
HALVES = {
    "llama": (("model.embed_tokens.weight", 1),),
    "vit": (("vit.embeddings.cls_token", 2), ("vit.embeddings.position_embeddings", 2)),
    "bert": (("bert.pooler.dense.weight", 0),),
}


@torch.no_grad()
def answer_evenly(model: nn.Module) -> None:
    """Make every logit of a model with random weights 0; models of other families are left as they are."""
    config = cast(Any, model).config
    parameters = dict(model.named_parameters())
    halves = HALVES.get(config.model_type, ())
    if not halves or any(name not in parameters for name, _ in halves):
        return
    half = config.hidden_size // 2
    for name, dimension in halves:
        first, second, _ = _parts(parameters[name], dimension, half)
        second.copy_(first)
    sign = _head(model)
    first, second, rest = _parts(sign, sign.ndim - 1, half)
    second.copy_(-first)
    rest.zero_()


def _parts(weight: Tensor, dimension: int, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first half of a weight, the second, and the one that an odd width leaves, along a dimension."""
    return (
        weight.narrow(dimension, 0, half),
        weight.narrow(dimension, half, half),
        weight.narrow(dimension, 2 * half, weight.shape[dimension] - 2 * half),
    )


def _head(model: nn.Module) -> Tensor:
    """The weight that opposes the halves: the head's, or that of the norm before it where the head is the embedding, too."""
    own = cast(Any, model)
    head = own.get_output_embeddings()
    if head is None:
        return cast(Tensor, (own.score if hasattr(own, "score") else own.classifier).weight)
    return cast(Tensor, own.model.norm.weight if head.weight is own.get_input_embeddings().weight else head.weight)
