"""Requests for runs: copies of earlier ones, names, edited ladders, stages before the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.loading.yaml_output import to_yaml
from tasks.lifecycle.new_run import edited, new_lock
from tasks.lifecycle.request import ResolvedRequest, RunRequest, kept_before, naming
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_registry import save

LADDER, BASE = load("digits")


def resolved(overrides: tuple[str, ...] = (), **asked: Any) -> ResolvedRequest:
    return ResolvedRequest(RunRequest("digits", **asked), LADDER, BASE, overrides)


def record(**changed: Any) -> RunRecord:
    plain = {
        "run": "r",
        "ladder": "digits",
        "status": "done",
        "settings_hash": "h",
        "started": "2026-01-01T00:00:00+00:00",
        "pid": 1,
        "folder": "",
    }
    return RunRecord.model_validate({**plain, "source": "digits", "overrides": ("seed=1", "a.b=2"), **changed})


@pytest.mark.parametrize(
    ("overrides", "asked", "alike"),
    [
        (("a.b=2", "seed=1"), {}, True),
        (("a.b=3", "seed=1"), {}, False),
        (("seed=1",), {}, False),
        (("seed=1", "a.b=2", "c=x=y"), {}, False),
        (("seed=1", "a.b=2"), {"start_at": "two"}, False),
        (("seed=1", "a.b=2"), {"fresh": True}, False),
        (("seed=1", "a.b=2"), {"name": "other", "note": "why", "by": "ann"}, True),
    ],
)
def test_a_run_is_like_another_of_the_same_parameters(overrides: tuple[str, ...], asked: dict[str, Any], alike: bool) -> None:
    assert resolved(overrides, **asked).is_like(record()) == alike


@pytest.mark.parametrize("other", [{"source": "tiny"}, {"only": "s1"}, {"proof": True}])
def test_runs_of_another_kind_are_not_alike(other: dict[str, Any]) -> None:
    assert resolved(("seed=1", "a.b=2")).is_like(record())
    assert not resolved(("seed=1", "a.b=2")).is_like(record(**other))


def test_a_proof_is_like_a_proof() -> None:
    assert resolved(("seed=1", "a.b=2"), proof=True).is_like(record(proof=True))


def test_an_inline_ladder_is_recorded_by_its_name_with_no_overrides() -> None:
    inline = ResolvedRequest(RunRequest("python-stdlib", inline_ladder=LADDER), LADDER, Path.cwd(), ("seed=1",))
    assert (inline.recorded_source, inline.recorded_overrides) == ("digits", ())


def test_the_models_before_a_stage_are_kept() -> None:
    first, second = (stage.name for stage in LADDER.stages[:2])
    assert kept_before(LADDER, None) == ()
    assert kept_before(LADDER, first) == ("teacher",)
    grown = LADDER.model_copy(update={"stages": (LADDER.stages[0].model_copy(update={"members": 3}), *LADDER.stages[1:])})
    assert kept_before(grown, LADDER.stages[1].name) == ("teacher", first, f"{first}.2", f"{first}.3"), "members are not made anew, either"
    assert kept_before(LADDER, second) == ("teacher", first)
    with pytest.raises(UserError, match=f"--start-at: got 'nothing'; allowed: a stage of this ladder: {first}"):
        kept_before(LADDER, "nothing")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "../up"}, "--name: got '../up'; allowed: letters, digits"),
        ({"name": "x" * 65}, "at most 64"),
        ({"note": "x" * 1001}, "--note: got 'xxxx"),
        ({"by": "x" * 101}, "at most 100 characters"),
    ],
)
def test_names_notes_and_authors_are_bounded(given: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        naming(**{"name": None, "note": None, "by": None, **given})


def test_a_run_on_a_command_line_has_an_author() -> None:
    assert naming("half-alpha", "", "ann") == {"name": "half-alpha", "note": None, "by": "ann"}
    assert naming(None, None, None)["by"]


def test_a_name_that_is_taken_is_numbered(tmp_path: Path) -> None:
    home = Home(tmp_path)
    locks = [new_lock(resolved(name="trial"), home) for _ in range(2)]
    (home.runs / "trial-3").mkdir(parents=True)
    locks.append(new_lock(resolved(name="trial"), home))
    assert [lock.run for lock in locks] == ["trial", "trial-2", "trial-4"]
    assert new_lock(resolved(proof=True), home).run.startswith("digits-proof-")


def test_an_edit_of_the_ladder_since_the_last_run_like_it_is_told(tmp_path: Path) -> None:
    home, folder = Home(tmp_path), tmp_path / "runs" / "r"
    save(home, record(folder=str(folder)))
    (folder / "ladder.yaml").write_text(to_yaml(load("digits", ["stages.half.training.steps=7"]).ladder))
    assert edited(resolved(("a.b=2", "seed=1")), home) == ("stages.half.training.steps: 7 -> 300",)
    assert edited(resolved(("a.b=3",)), home) == (), "another override is no edit"
    (folder / "ladder.yaml").write_text("not: [a, ladder")
    assert edited(resolved(("a.b=2", "seed=1")), home) == ()
