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
