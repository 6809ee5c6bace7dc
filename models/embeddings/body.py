"""Models of embeddings around a body of transformers."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn


class Embeddings(NamedTuple):
    """The answer of a model of embeddings; under the name that other models' answers have."""

    logits: Tensor  # (B, D) of a sentence encoder, (B, 2, D) of pairs


class EmbeddingModel(nn.Module):
    """A model of embeddings around a body of transformers.

    Args:
        config: Of the body.
        body: Its weights; None: fresh ones, which torch's global generator decides.
    """

    base_model_prefix = "body"

    def __init__(self, config: Any, body: nn.Module | None = None) -> None:
        super().__init__()
        if body is None:
            import transformers

            body = cast(nn.Module, transformers.AutoModel.from_config(config, dtype=torch.float32))
        self.body = body

    @property
    def config(self) -> Any:
        """The body's configuration."""
        return cast(Any, self.body).config

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """As the body."""
        return bool(cast(Any, self.body).supports_gradient_checkpointing)

    def activation_checkpointing_enable(self, settings: dict[str, Any]) -> None:
        """As the body."""
        cast(Any, self.body).activation_checkpointing_enable(settings)

    def activation_checkpointing_disable(self) -> None:
        """As the body."""
        cast(Any, self.body).activation_checkpointing_disable()

    def disable_input_require_grads(self) -> None:
        """As the body."""
        cast(Any, self.body).disable_input_require_grads()

    def get_output_embeddings(self) -> None:
        """None: it predicts no ids."""

    def can_generate(self) -> bool:
        """False: it writes no text."""
        return False
