"""An empty store."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.home import Home
from tasks.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Home(tmp_path / "home"))
