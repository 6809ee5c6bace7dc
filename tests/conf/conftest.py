from pathlib import Path

import pytest

from tests.conf.tiny import TINY, write


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return write(tmp_path, TINY)
