"""Whether a causal LM keeps attention within the documents of a window."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from conf.errors import UserError
from models.architectures.token_answers import TokenAnswers

DOCUMENT = 4  # ids of each of the two documents that are tried


def check_packing(model: nn.Module) -> None:
    """Refuse a causal LM whose position ids do not part the documents of a window.

    The model itself is run, on two documents in one window, rather than a list of names consulted: the gradient of the second one's
    logits by the embeddings of the first must be exactly zero. transformers' models of the llama kind make a block-diagonal mask of
    position ids that begin anew; others take no position ids, or carry a state from document to document.

    Raises:
        UserError: Naming the architecture.
    """
    if isinstance(model, TokenAnswers):
        return  # answers to a document were given without the others
    takes = "position_ids" in inspect.signature(model.forward).parameters
    if not takes or bool(_influence(model).any()):
        kind = type(model).__name__
        remedy = "Set it to true, or choose models of another architecture."
        raise UserError.about(
            "data.cross_document_attention", False, f"true for a {kind}, whose position ids do not part documents", remedy
        )


def _influence(model: nn.Module) -> Tensor:
    """Gradient of the second document's logits by the embeddings of the first, (1, DOCUMENT, H)."""
    seen: list[Tensor] = []

    def leaf(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    embedding = cast(Any, model).get_input_embeddings()
    places = torch.arange(2 * DOCUMENT, device=embedding.weight.device)[None]
    training, handle = model.training, embedding.register_forward_hook(leaf)
    model.eval()
    try:
        with torch.enable_grad():
            logits = cast(Any, model)(input_ids=places % len(embedding.weight), position_ids=places % DOCUMENT).logits
            (gradient,) = torch.autograd.grad(logits[:, DOCUMENT:].float().square().sum(), seen[0])
    finally:
        handle.remove()
        model.train(training)
    return gradient[:, :DOCUMENT]
