"""Requests for runs: parameters changed since earlier runs, stages before the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.loading.load import load
from tasks.lifecycle.request import ResolvedRequest, RunRequest, kept_before
from tasks.records.run import RunRecord

LADDER, BASE = load("digits")


def resolved(overrides: tuple[str, ...] = (), **asked: Any) -> ResolvedRequest:
    return ResolvedRequest(RunRequest("digits", **asked), LADDER, BASE, overrides)


def record(**changed: Any) -> RunRecord:
    plain = {"run": "r", "ladder": "digits", "status": "done", "settings_hash": "h", "started": "", "pid": 1, "folder": ""}
    return RunRecord.model_validate({**plain, "source": "digits", "overrides": ("seed=1", "a.b=2"), **changed})


@pytest.mark.parametrize(
    ("overrides", "asked", "changes"),
    [
        (("a.b=2", "seed=1"), {}, 0),
        (("a.b=3", "seed=1"), {}, 1),
        (("seed=1",), {}, 1),
        (("seed=1", "a.b=2", "c=x=y"), {}, 1),
        (("seed=1", "a.b=2"), {"start_at": "two"}, 1),
        (("seed=1", "a.b=2"), {"fresh": True}, 1),
        ((), {}, 2),
    ],
)
def test_changed_parameters_are_counted(overrides: tuple[str, ...], asked: dict[str, Any], changes: int) -> None:
    assert resolved(overrides, **asked).changes(record()) == changes


@pytest.mark.parametrize("other", [{"source": "tiny"}, {"only": "s1"}, {"proof": True}])
def test_runs_of_another_kind_are_not_alike(other: dict[str, Any]) -> None:
    assert resolved().is_like(record())
    assert not resolved().is_like(record(**other))


def test_a_proof_is_like_a_proof() -> None:
    assert resolved(proof=True).is_like(record(proof=True))


def test_an_inline_ladder_is_recorded_by_its_name_with_no_overrides() -> None:
    inline = ResolvedRequest(RunRequest("python-stdlib", inline_ladder=LADDER), LADDER, Path.cwd(), ("seed=1",))
    assert (inline.recorded_source, inline.recorded_overrides) == ("digits", ())


def test_the_models_before_a_stage_are_kept() -> None:
    first, second = (stage.name for stage in LADDER.stages[:2])
    assert kept_before(LADDER, None) == ()
    assert kept_before(LADDER, first) == ("teacher",)
    assert kept_before(LADDER, second) == ("teacher", first)
    with pytest.raises(UserError, match=f"--start-at: got 'nothing'; allowed: a stage of this ladder: {first}"):
        kept_before(LADDER, "nothing")
