"""A home of version 0.3.0: made by that version as a script, restored by tests.

`python tests/flows/old_home.py CHECKOUT` makes `home-0.3.0.tar.xz` from a checkout of that version with an environment in `.venv`; the
archive was made with commit 90bafb8, the last one before the modules moved into rooms. It holds a finished run of the ladder `tiny`
and one that was killed in its last stage, with checkpoints. Of its MLflow database it keeps the SQL; absolute paths are placeholders.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).with_name("home-0.3.0.tar.xz")
PLACEHOLDER = "/the-folder-of-the-old-version"
KILLED = ("stages.three.training.steps=300", "stages.three.training.checkpoint_every=2")  # the changes of the run that was killed
SAFE: dict[str, Any] = (
    {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
)  # Python before 3.11.4, as in Debian 12, has no filters
TEXTS = (".json", ".md", ".html", ".sql", ".yaml")


def restore(folder: Path) -> Path:
    """Unpack the home and its ladder `tiny.yaml` into an empty folder, where they then are as if made there; returns the home."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, **SAFE)
    replace(folder, PLACEHOLDER, str(folder))
    dump = folder / "home" / "mlflow" / "mlflow.sql"
    database = sqlite3.connect(dump.with_suffix(".db"))
    database.executescript(dump.read_text())
    database.close()
    dump.unlink()
    return folder / "home"


def replace(folder: Path, old: str, new: str) -> None:
    """Replace a path in all texts under a folder."""
    for path in folder.rglob("*"):
        if path.suffix in TEXTS and old in (text := path.read_text()):
            path.write_text(text.replace(old, new))


def make(checkout: Path) -> None:
    """Run the ladder twice in the old version, kill the second run, and pack the home."""
    sys.path.insert(0, str(checkout))
    from tests.flows.ladders import TINY

    folder = Path(tempfile.mkdtemp())
    home, ladder = folder / "home", folder / "tiny.yaml"
    ladder.write_text(TINY)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("LADDER_", "PREFECT_", "MLFLOW_"))}
    env = {**kept, "PYTHONPATH": str(checkout), "LADDER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [checkout / ".venv/bin/ladder", "run", ladder]
    subprocess.run(command, env=env, cwd=folder, check=True)
    killed = subprocess.Popen([*command, *KILLED], env=env, cwd=folder, start_new_session=True)
    while not list(home.glob("store/checkpoints/*/step-*")) and killed.poll() is None:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it ended before it was killed"

    for left in (home / "prefect", home / "locks", home / "hardware.json"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    database = home / "mlflow" / "mlflow.db"
    opened = sqlite3.connect(database)
    database.with_suffix(".sql").write_text("\n".join(opened.iterdump()))
    opened.close()
    for path in database.parent.glob("mlflow.db*"):
        path.unlink()
    replace(folder, str(folder), PLACEHOLDER)
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for path in (ladder, home):
            archive.add(path, path.name, filter=_nobody)
    shutil.rmtree(folder)


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
