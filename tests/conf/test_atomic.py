"""A file that is replaced holds the old content or the new, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conf.atomic import write_atomic

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from conf.atomic import write_atomic

def half(path):
    path.write_text("half of the new con")
    os.kill(os.getpid(), signal.SIGKILL)

write_atomic(Path(sys.argv[1]), half)
"""


@pytest.mark.parametrize("content", ["new: \u00e9", b"new: \xc3\xa9", lambda path: path.write_text("new: \u00e9", encoding="utf-8")])
def test_the_new_content_replaces_the_old(tmp_path: Path, content: object):
    path = tmp_path / "figures.json"
    path.write_text("old")
    write_atomic(path, content)  # pyright: ignore[reportArgumentType]
    assert path.read_bytes() == b"new: \xc3\xa9"
    assert os.listdir(tmp_path) == ["figures.json"]


@pytest.mark.processes
def test_a_process_killed_in_the_middle_leaves_the_old_content_whole(tmp_path: Path):
    path = tmp_path / "figures.json"
    path.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_atomic(path, "new")
    assert path.read_text() == "new"


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path):
    path = tmp_path / "figures.json"
    path.write_text("old")

    def broken(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_atomic(path, broken)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["figures.json"]


def test_a_reader_beside_many_writers_finds_whole_contents(tmp_path: Path):
    path = tmp_path / "figures.json"
    contents = [letter * 100_000 for letter in "abcd"]
    write_atomic(path, contents[0])
    writers = [threading.Thread(target=lambda text=text: [write_atomic(path, text) for _ in range(10)]) for text in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in contents
    assert os.listdir(tmp_path) == ["figures.json"]
