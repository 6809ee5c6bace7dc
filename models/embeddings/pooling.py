"""Pooling of a sentence encoder: one embedding from the states of its tokens.

Shape legend: B texts, L positions, H width of the states, D numbers of an embedding.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what only reads a pooling goes without torch
    from torch import Tensor

ATTRIBUTE = "sentence_embedding"  # of a configuration: the settings below, while the model is in memory
MODES = ("mean", "cls", "max", "lasttoken", "mean_sqrt_len")
ACTIVATIONS = ("identity", "tanh")


@dataclass(frozen=True)
class Pooling:
    """Settings of pooling, projection and normalisation, as sentence-transformers has them.

    Attributes:
        mode: One of `MODES`: the mean over the text's positions, the first one, the largest value of each feature, the last one, or the
            sum over the root of the length.
        size: D; None: H.
        normalize: Scale each embedding to length 1.
        dense: Whether there is a projection even where D equals H.
        bias: Of the projection.
        activation: After the projection, one of `ACTIVATIONS`.
    """

    mode: str = "mean"
    size: int | None = None
    normalize: bool = True
    dense: bool = False
    bias: bool = False
    activation: str = "identity"


def pooling_of(config: Any) -> Pooling:
    """The pooling of a configuration; the usual one where none is noted."""
    return Pooling(**getattr(config, ATTRIBUTE, None) or {})


def set_pooling(config: Any, pooling: Pooling) -> None:
    """Note a pooling in a configuration, for the models that are built of it."""
    setattr(config, ATTRIBUTE, asdict(pooling))


def size_of(config: Any) -> int:
    """D, numbers of an embedding."""
    return pooling_of(config).size or int(config.hidden_size)


def pool_like(config: Any, teacher: Any | None) -> None:
    """Give a student's configuration the teacher's pooling and size of embeddings; None: it is not known, and the usual one serves."""
    if teacher is not None:
        theirs = pooling_of(teacher)
        set_pooling(config, Pooling(**{**asdict(theirs), "size": size_of(teacher)}))


def pooled(states: Tensor, mask: Tensor, mode: str) -> Tensor:
    """One vector for each text.

    Args:
        states: (B, L, H).
        mask: (B, L), 1 for positions of the text, on either side of the padding.
        mode: One of `MODES`.

    Returns:
        (B, H); in fp32 for sums over positions.
    """
    if mode == "cls":
        return _at(states, mask.argmax(1))
    if mode == "lasttoken":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return _at(states, last)
    weights = mask[..., None].float()
    if mode == "max":
        return states.masked_fill(weights == 0, -math.inf).max(1).values
    total, count = (states.float() * weights).sum(1), weights.sum(1).clamp(min=1e-9)
    return total / (count if mode == "mean" else count.sqrt())


def _at(states: Tensor, places: Tensor) -> Tensor:
    """The state at one place of each text."""
    return states.gather(1, places[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
