import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.home import Home
from tests.conf.tiny import TINY, write


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return write(tmp_path, TINY)


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a folder that everybody may enter; those of pytest are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="ladder-everybody-", dir="/tmp"))
    folder.chmod(0o755)
    yield Home(folder / "home")
    shutil.rmtree(folder)
