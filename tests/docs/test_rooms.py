"""`python -m benchmarks.rooms` counts files, lines and imports of any checkout, and finds circles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT


def rooms_of(checkout: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.rooms", str(checkout)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


def test_rooms_of_a_checkout_with_a_circle(tmp_path: Path):
    for layer in ("flows", "tasks", "models", "conf"):
        (tmp_path / layer).mkdir()
        (tmp_path / layer / "__init__.py").touch()
    (tmp_path / "tasks" / "store").mkdir()
    (tmp_path / "tasks" / "store" / "__init__.py").touch()
    (tmp_path / "tasks" / "store" / "one.py").write_text("import tasks.store.two\n")
    (tmp_path / "tasks" / "store" / "two.py").write_text("import conf.errors\nimport tasks.store.one\n")
    (tmp_path / "conf" / "errors.py").write_text("A = 1\n")
    printed = rooms_of(tmp_path)
    assert "| tasks.store | 2 | 3 | two.py 2 | conf 1 |" in printed
    assert "circles of modules: tasks.store.one, tasks.store.two\ncircles of rooms: none" in printed


def test_this_checkout_has_no_circle_of_modules():
    assert "circles of modules: none" in rooms_of(ROOT)
