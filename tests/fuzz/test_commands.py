"""Commands given anything: an exit code, one message, no traceback, and no home where nothing was begun."""

from __future__ import annotations

import copy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from conf.loading.load import load
from conf.native import ALLOCATOR
from flows.cli.app import main
from tests.conf.tiny import TINY
from tests.fuzz.test_settings import ANYTHING, places
from tests.fuzz.tried import tried

# Beside the file of a ladder: what `run` starts in a process of its own is refused before that.
COMMANDS = (("run",), ("run", "--seed", "3", "--name", "x"), ("prove",), ("prove", "--arms", "staged"), ("plan",), ("plan", "--json"))
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Call]:
    """Run `ladder` in this process; returns exit code, output and errors."""
    before = signal.getsignal(signal.SIGTERM)
    for name, value in {**ALLOCATOR, "LADDER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def call_(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ladder", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    yield call_
    signal.signal(signal.SIGTERM, before)


def refused(said: tuple[int, str, str], home: Path) -> None:
    code, out, err = said
    assert code == 2, err
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1, err
    assert not home.exists()


def test_a_ladder_that_is_refused_is_refused_by_every_command(call: Call, tmp_path: Path) -> None:
    whole = yaml.safe_load(TINY)

    @settings(settings.get_profile("fuzz"))
    @given(st.sampled_from(places(whole)[1:]), ANYTHING, st.sampled_from(COMMANDS))
    def anywhere(place: tuple[Any, ...], value: Any, command: tuple[str, ...]) -> None:
        changed = copy.deepcopy(whole)
        holder: Any = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        path = tmp_path / "ladder.yaml"
        path.write_text(yaml.safe_dump(changed), encoding="utf-8")
        try:
            load(str(path))
        except UserError:
            tried("commands: refused")
            refused(call(command[0], str(path), *command[1:]), tmp_path / "home")
            refused(call("explain", str(path)), tmp_path / "home")

    anywhere()


def test_any_key_is_explained_or_refused(call: Call, tmp_path: Path) -> None:
    word = st.sampled_from(["stages", "defaults", "alpha", "gate", "teacher", "x", "0", "[1]", "start", "training", "steps", ""])

    @settings(settings.get_profile("fuzz"))
    @given(st.lists(word, max_size=4).map(".".join) | st.text(max_size=12).filter(lambda text: not text.startswith("-")))
    def explained(key: str) -> None:
        code, out, err = said = call("explain", key)
        tried(f"explain: {'explained' if code == 0 else 'refused'}")
        if code == 0:
            assert out
            assert err == ""
        else:
            refused(said, tmp_path / "home")

    explained()


def test_options_of_init(call: Call, tmp_path: Path) -> None:
    odd = st.sampled_from(["", "x", "./x", "~", "/", "\0", "package:", "package:x", "a/b", "x.gguf", "digits", "-1", "40m,", "0", "1e99m"])

    @settings(settings.get_profile("fuzz"))
    @given(odd, odd, odd)
    def options(teacher: str, data: str, sizes: str) -> None:
        code, out, err = call("init", "--teacher", teacher, "--data", data, "--to", sizes, "--yes")
        tried(f"init: {'written' if code == 0 else 'refused'}")
        assert (code, out) == (2, ""), err
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1, err

    options()
