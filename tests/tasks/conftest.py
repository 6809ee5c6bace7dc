"""Fixtures of the tests of `tasks/`."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.home import Home
from tasks.runtime.logs import _RateLimit, log
from tasks.tracking.tracker import connect
from tests.tasks.reports import digits, figures, language, page

__all__ = ["calm", "digits", "figures", "language", "page"]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database; making its tables takes seconds."""
    place = Home(tmp_path_factory.mktemp("record"))
    connect(place)
    return place.mlflow / "mlflow.db"


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter, as new, and no handler that another test has left."""
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "filters", [_RateLimit()])
    monkeypatch.setattr(log, "propagate", True)
