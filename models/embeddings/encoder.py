"""A sentence encoder: a body, pooling over positions, a projection.

Shape legend: B texts, L positions, H width of the states, D numbers of an embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.embeddings.body import EmbeddingModel, Embeddings
from models.embeddings.pooling import Pooling, pooled, pooling_of


class SentenceEncoder(EmbeddingModel):
    """An encoder whose answer to a text is one embedding; it is published as a folder of sentence-transformers.

    Args:
        config: Of the body, with the pooling (`models.embeddings.pooling.ATTRIBUTE`).
        body: Its weights; None: fresh ones, which torch's global generator decides.
    """

    def __init__(self, config: Any, body: nn.Module | None = None) -> None:
        super().__init__(config, body)
        pooling, width = pooling_of(config), int(config.hidden_size)
        size = pooling.size or width
        self.projection = nn.Linear(width, size, bias=pooling.bias) if pooling.dense or size != width else None

    @property
    def pooling(self) -> Pooling:
        """Pooling settings of the configuration."""
        return pooling_of(self.config)

    @property
    def base_model(self) -> nn.Module:
        """The body."""
        return self.body

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Embeddings:
        """Embeddings (B, D) of texts (B, L) with their mask; None: nothing is padded."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        made = pooled(self.body(input_ids=input_ids, attention_mask=mask).last_hidden_state, mask, self.pooling.mode)
        if self.projection is not None:
            made = self.projection(made)
            made = made.tanh() if self.pooling.activation == "tanh" else made
        return Embeddings(functional.normalize(made.float(), dim=-1) if self.pooling.normalize else made)

    def get_input_embeddings(self) -> nn.Module:
        """As the body."""
        return cast(Any, self.body).get_input_embeddings()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that sentence-transformers loads, and whose body `AutoModel` loads."""
        from models.embeddings.sentence_folder import write_encoder

        write_encoder(self.body, self.projection, self.pooling, Path(folder))
