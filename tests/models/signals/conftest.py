"""The text whose signals are cached."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.data.corpus import Corpus


@pytest.fixture
def text(lm_corpus: Callable[..., Corpus]) -> Corpus:
    """Windows that all differ, 150 of them."""
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 256, 119).tolist() for _ in range(30)]
    return lm_corpus(documents, documents[:2], length=24)
