"""Fixtures of the tests of `tasks/`."""

from __future__ import annotations

import pytest

from tasks.runtime.logs import _RateLimit, log
from tests.tasks.reports import digits, language, page

__all__ = ["calm", "digits", "language", "page"]


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter, as new, and no handler that another test has left."""
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "filters", [_RateLimit()])
    monkeypatch.setattr(log, "propagate", True)
