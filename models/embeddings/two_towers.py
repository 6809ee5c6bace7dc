"""Embeddings of pictures and of texts in one space, as CLIP makes them.

Shape legend: B pairs of a picture and a text, D numbers of an embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.embeddings.body import EmbeddingModel, Embeddings


class TwoTowers(EmbeddingModel):
    """A model like CLIP, whose answer to a picture and its text are two embeddings of length 1."""

    def forward(self, **inputs: Tensor) -> Embeddings:
        """(B, 2, D) of a batch's inputs: the picture's embedding, then the text's."""
        made = self.body(**inputs)
        return Embeddings(torch.stack([made.image_embeds, made.text_embeds], dim=1).float())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `AutoModel` loads."""
        cast(Any, self.body).save_pretrained(folder)


def shared_size(config: Any) -> int | None:
    """D of a configuration that states it; None: the widths of its parts decide."""
    size = getattr(config, "projection_dim", None)
    return size if isinstance(size, int) else None


def share_space(config: Any, teacher: Any) -> None:
    """Give a student's configuration as many numbers of an embedding as its teacher has, where it states them."""
    size = shared_size(teacher) or getattr(teacher.text_config, "projection_size", None) or teacher.text_config.hidden_size
    if shared_size(config) is not None:
        config.projection_dim = size
        for part in (config.text_config, config.vision_config):
            if hasattr(part, "projection_dim"):
                part.projection_dim = size
    elif hasattr(config.text_config, "projection_size"):
        config.text_config.projection_size = config.vision_config.hidden_size  # such a model projects no picture


def copy_scale(student: nn.Module, teacher: nn.Module) -> None:
    """Give a student its teacher's scale of cosines, by which both make probabilities of the same kind."""
    theirs = dict(teacher.named_parameters())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.rpartition(".")[2] in ("logit_scale", "logit_bias") and name in theirs:
                parameter.copy_(theirs[name])
