"""Folders of tiny models."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.published import published_folder


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Make the folder of a random model of a workload, see `published_folder`."""
    return partial(published_folder, tmp_path / "model")
