"""Runs of machines that share an object store, and no disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.driver import Cli, actions, half_written, home_with_database
from tests.s3 import make_bucket, s3_environment, s3_server

QUICK = ("repeats=3", "warmup=1", "start=false", "batch_sizes=[1]")
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        make_bucket(address)
        yield address


@pytest.mark.slow
def test_what_one_machine_has_made_is_found_by_another(
    finished: Cli, tiny: Path, tmp_path: Path, empty_database: Path, endpoint: str
) -> None:
    finished.env |= s3_environment(endpoint, "shared")
    finished("run", tiny)  # finds all here, and uploads it
    far = Cli(home_with_database(tmp_path / "far", empty_database), dict(finished.env))
    planned = far.json("plan", tiny)
    assert (planned["data"], planned["teacher"]["action"]) == ("reuse", "reuse")
    assert [stage["action"] for stage in planned["stages"]] == ["reuse"] * 3
    run = far("run", tiny)
    assert actions(run.err) == dict.fromkeys(("teacher", "one", "two", "three"), "reused")
    assert far.hashes() == finished.hashes()
    mine, theirs = far.json("show"), finished.json("show")
    assert [model["fingerprint"] for model in mine["stages"]] == [model["fingerprint"] for model in theirs["stages"]]
    assert half_written(far.home) == []
    for place in (far.home / "runs").rglob("*.json"):
        assert far.env["AWS_SECRET_ACCESS_KEY"] not in place.read_text()
    for kind in ("teacher", "stage"):
        shutil.rmtree(far.home / "store" / kind)  # as a size limit of the home does
    assert [made["refused"] for made in far.json("export", "--format", "hf")["exports"]] == [None]
    assert [model["name"] for model in far.json("bench", *QUICK)["models"]] == ["teacher", "one", "two", "three"]
    checks = {check["name"]: check for check in json.loads(far("doctor", "--json", code=None).out)}
    assert checks["object store"]["found"] == f"{far.env['LADDER_STORE']} answers; conditional writes"


@pytest.mark.slow
def test_a_run_does_not_begin_without_its_object_store_and_a_plan_does(finished: Cli, tiny: Path) -> None:
    finished.env |= s3_environment("http://127.0.0.1:9", "shared")
    refused = finished("run", tiny, code=2)
    assert "LADDER_STORE: s3://ladders/shared cannot be used: it did not answer as it should, 5 times" in refused.err
    assert "What was computed stays in LADDER_HOME." in refused.err
    planned = finished.json("plan", tiny, "stages.one.objective.alpha=0.25")
    assert [stage["action"] for stage in planned["stages"]] == ["compute"] * 3
    assert any("planned without the object store" in note for note in planned["notes"])
