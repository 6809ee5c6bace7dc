"""Choice of the next token: the most probable one, or a draw from a nucleus."""

from __future__ import annotations

import torch
from torch import Tensor

from models.engines.base import GenerationSettings


class Sampler:
    """Chooses tokens of one answer with random numbers of its own, so that answers beside it do not matter."""

    def __init__(self, settings: GenerationSettings) -> None:
        self._temperature, self._top_p = settings.temperature, settings.top_p
        self._random = torch.Generator()
        if settings.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(settings.seed)

    def choose(self, scores: Tensor) -> int:
        """An id, by (V,) log-probabilities."""
        if self._temperature == 0:
            return int(scores.argmax())
        probabilities = (scores / self._temperature).softmax(-1)
        if self._top_p < 1:
            ordered, ids = probabilities.sort(descending=True)
            before = ordered.cumsum(0) - ordered  # of those that are more probable; the first is always kept
            probabilities = torch.zeros_like(probabilities).scatter_(0, ids, ordered.where(before < self._top_p, 0.0))
        return int(torch.multinomial(probabilities, 1, generator=self._random))


def draw(scores: Tensor, temperature: float, chance: Tensor) -> Tensor:
    """(R,) ids, one for each row of (R, V) logits, by the inverse of their cumulated probabilities.

    Args:
        scores: At least fp32.
        temperature: Divisor; 0: the most probable id.
        chance: (R,) numbers in [0, 1), drawn evenly.
    """
    if temperature == 0:
        return scores.argmax(-1)
    cumulated = (scores / temperature).softmax(-1).cumsum(-1, dtype=torch.float64)
    wanted = chance.double()[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)
