"""Addresses and files that a terminal opens with a click."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from flows.cli.printing import clickable

ADDRESS = "http://127.0.0.1:4200/runs/flow-run/1"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A terminal, to be put in place of standard output within the test: pytest sets its own before each."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as file:
        monkeypatch.setenv("TERM", "xterm-256color")
        yield file
    os.close(master)


def link(place: str, text: str) -> str:
    return f"\x1b]8;;{place}\x1b\\{text}\x1b]8;;\x1b\\"


def test_addresses_and_files_that_exist_are_links(terminal: TextIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    report = tmp_path / "a report.html".replace(" ", "%")
    report.touch()
    text = f"Report:     {report}\nPrefect UI: {ADDRESS}\nsqlite:///{tmp_path}/x /nowhere and/or"
    expected = (
        f"Report:     {link(report.as_uri(), str(report))}\nPrefect UI: {link(ADDRESS, ADDRESS)}\nsqlite:///{tmp_path}/x /nowhere and/or"
    )
    assert clickable(text) == expected


def test_a_dumb_terminal_and_a_pipe_get_plain_text(terminal: TextIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    text = f"{ADDRESS} {tmp_path}"
    assert clickable(text) != text
    monkeypatch.setenv("TERM", "dumb")
    assert clickable(text) == text
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert clickable(text) == text
