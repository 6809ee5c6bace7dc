"""`ladder search`: trials in the store and in MLflow, a winner to run, a killed search that goes on."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from tests.flows.driver import Cli, wait_for

SPACE = "search.space={training: {learning_rate: [0.003, 0.02], weight_decay: [0.05, 0.01]}}"
COMMAND = ("--stage", "three", "--trials", 3, SPACE, "search.seeds=2")


def searched(home: Path) -> dict[str, Any]:
    """The search of the newest run."""
    newest = max(home.glob("runs/*/search.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())


def stages(home: Path) -> int:
    return len(list((home / "store" / "stage").glob("*/manifest.json")))


@pytest.mark.slow
def test_a_search_shares_the_store_and_its_winner_is_a_file_of_overrides(finished, undisturbed, tiny):
    ran = {stage["name"]: stage["fingerprint"] for stage in undisturbed.json("show")["stages"]}
    done = finished("search", tiny, *COMMAND)
    found = searched(finished.home)
    trials = found["trials"]
    assert found["defaults"]["rungs"][0]["fingerprints"] == trials[0]["rungs"][0]["fingerprints"] == [ran["three"]]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    best = max(trials, key=lambda trial: trial["rungs"][-1]["score"])
    assert (found["winner"], best["values"]["training.learning_rate"]) == (best["number"], 0.02)
    assert found["overrides"][0] == "stages.three.training.learning_rate=0.02"
    confirmed = found["confirmation"]
    assert confirmed["seeds"] == [1, 2]
    assert confirmed["gain"]["low"] < confirmed["gain"]["mean"] < confirmed["gain"]["high"]
    assert found["verdict"] in " ".join(done.out.split())
    with sqlite3.connect(finished.home / "mlflow" / "mlflow.db") as database:
        children = database.execute("SELECT count(*) FROM tags WHERE key = 'ladder.trial' AND value = 'complete'").fetchone()
        verdicts = database.execute("SELECT value FROM tags WHERE key = 'ladder.verdict'").fetchall()
    assert children == (3,)
    assert verdicts == [(found["verdict"],)]
    report = next(finished.home.glob("runs/tiny-search-*/report.html")).read_text()
    assert "Fresh seeds, test split" in report


@pytest.mark.slow
def test_the_winner_and_a_second_search_are_found_in_the_store(finished, undisturbed, tiny):
    finished("search", tiny, *COMMAND)
    found, before = searched(finished.home), stages(finished.home)
    best = max(found["trials"], key=lambda trial: trial["rungs"][-1]["score"])
    finished("run", tiny, f"@{found['file']}")
    shown = finished.json("show")
    assert shown["stages"][-1]["fingerprint"] == best["rungs"][-1]["fingerprints"][-1]
    assert stages(finished.home) == before, "the winner is found in the store"
    finished("search", tiny, *COMMAND)
    again = searched(finished.home)
    assert stages(finished.home) == before, "a search that is finished computes nothing"
    assert [trial["values"] for trial in again["trials"]] == [trial["values"] for trial in found["trials"]]
    assert again["confirmation"]["gains"] == found["confirmation"]["gains"]
    refused = finished("search", tiny, *COMMAND, "stages.three.training.warmup=0.3", code=2).err
    assert "search.study: got 'tiny-three'; allowed: a new name, or the settings that its trials were made with" in refused


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--metric", "bits_per_byte"), "search.metric: got 'bits_per_byte'; allowed: accuracy, macro_f1, nll, ece"),
        (("--budget", "soon"), "search.budget: got 'soon'; allowed: a whole number with s, m, h or d"),
        (("search.space={objective: {beta: []}}",), "search.space: got [] for objective.beta; allowed: a list of values"),
        (("@nowhere",), "override: got '@nowhere'; allowed: @ and the path of a readable file with one KEY=VALUE a line. No such file"),
    ],
)
def test_a_mistake_starts_nothing(cli, tiny, option: tuple[str, ...], message: str):
    assert message in cli("search", tiny, *option, code=2).err
    assert not list(cli.home.glob("runs/*"))


@pytest.mark.slow
def test_a_killed_search_of_two_trials_at_a_time_goes_on_and_loses_nothing(finished, undisturbed, tiny, tmp_path):
    command = ("search", tiny, "--stage", "three", "--trials", 6, "search.seeds=2", "stages.three.training.steps=150", "compute.at_once=2")
    process = finished.start_logged(log := tmp_path / "log", *command)
    wait_for(lambda: "trial 2:" in log.read_text() or process.poll() is not None, "the second round")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, log.read_text()
    kept = searched(finished.home)["trials"]
    done = finished(*command)
    found = searched(finished.home)
    assert found["run"] == next(finished.home.glob("runs/tiny-search-*")).name, "the same run goes on"
    assert len([trial for trial in found["trials"] if trial["state"] in ("complete", "pruned")]) == 6
    assert [trial["values"] for trial in found["trials"][: len(kept)]] == [trial["values"] for trial in kept]
    assert {rung["steps"] for trial in found["trials"] for rung in trial["rungs"]} == {50, 150}
    assert found["verdict"] in " ".join(done.out.split())


@pytest.mark.slow
def test_a_search_ends_with_the_one_sentence_of_a_worker_that_refuses(finished, tiny):
    here_alone: Any = LocalCluster
    env = {"LADDER_STORE": "nowhere"}  # of the worker's machine alone
    with here_alone(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, env=env) as cluster:
        cli = Cli(finished.home, {**finished.env, "LADDER_CLUSTER": cluster.scheduler_address})
        said = cli("search", tiny, *COMMAND, code=1).err
    (told,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert told.startswith("error: LADDER_STORE: got 'nowhere'; allowed: an address such as s3://bucket/folder")


@pytest.mark.slow
def test_a_proof_searches_every_arm_with_as_many_trials(finished, tiny):
    finished("prove", tiny, "--arms", "direct,scratch", "--seeds", 2, "proof.search=3", "proof.control=false")
    shown = finished.json("show")
    note = next(note for note in shown["proof"]["notes"] if note.startswith("3 trials of every arm's settings, on other seeds: "))
    assert "direct: " in note
    assert "scratch: " in note
    with sqlite3.connect(finished.home / "studies.db") as database:
        trials = database.execute(
            "SELECT study_id, count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED') GROUP BY study_id"
        ).fetchall()
    assert [count for _, count in trials] == [3, 3]
    flops = {arm["arm"]: arm["replicates"][0]["flops"] for arm in shown["proof"]["arms"]}
    before = stages(finished.home)
    finished("prove", tiny, "--arms", "direct,scratch", "--seeds", 2, "proof.search=3", "proof.control=false")
    again = finished.json("show")["proof"]
    assert stages(finished.home) == before
    assert {arm["arm"]: arm["replicates"][0]["flops"] for arm in again["arms"]} == flops
    refused = finished("prove", tiny, "--budget", "2h", "proof.search=3", code=2).err
    assert "proof.search: got 3; allowed: 0 with a budget, which does not count its trials" in refused
