"""`ladder prove`: arms share stages and store, a killed proof is resumed."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from conf.home import Home
from conf.loading.load import load
from tasks.planning.budget import fit_budget
from tests.flows.driver import Cli, half_written, newest_checkpoint, wait_for
from tests.flows.ladders import TINY

ARMS = "staged,direct-matched,scratch"
ONE = TINY.partition("  - name: two")[0].replace("name: tiny", "name: single")
# The last student has its teacher's width, which the root has not.
NARROW = TINY.partition("  - name: three")[0].replace("name: tiny", "name: narrow") + (
    "  - name: three\n    student: {shape: {family: vit, hidden_size: 24, layers: 1, heads: 4, feed_forward: 48}, initialisation: layers}\n"
)


def evaluated(home: Path, split: str) -> list[str]:
    """Weights of the models that were judged on a split."""
    found = [json.loads(path.read_text())["identity"] for path in (home / "store" / "evaluation").glob("*/manifest.json")]
    return [identity["weights"] for identity in found if identity["split"] == split]


@pytest.mark.slow
def test_a_proof_reuses_the_run_is_continued_after_a_kill_and_computes_nothing_twice(finished, undisturbed, tiny, tmp_path):
    ran = {stage["name"]: stage["fingerprint"] for stage in undisturbed.json("show")["stages"]}
    command, log = ("prove", tiny, "--arms", ARMS, "--seeds", 2), tmp_path / "killed.log"
    process = finished.start_logged(log, *command)
    wait_for(lambda: "proof: staged, seed 2 of 2" in log.read_text() or process.poll() is not None, "the second seed")
    process.kill()
    assert process.wait() == -signal.SIGKILL, log.read_text()
    killed = finished.json("show")
    assert killed["status"] == "interrupted"
    assert [len(arm["replicates"]) for arm in killed["proof"]["arms"]] == [1, 1, 1]
    assert killed["proof"]["verdict"].startswith("No verdict yet")

    done = finished(*command)
    shown = finished.json("show")
    proof = shown["proof"]
    assert (shown["run"], shown["status"]) == (killed["run"], "done")
    arms = {arm["arm"]: arm["replicates"] for arm in proof["arms"]}
    assert list(arms) == ARMS.split(",")
    assert arms["staged"][0]["fingerprints"] == [ran[name] for name in ("one", "two", "three")]
    assert arms["staged"][0]["reused"] == 3
    assert [each["reused"] for each in arms["scratch"]] == [1, 0]
    assert [[each["seed"] for each in replicates] for replicates in arms.values()] == [[0, 1]] * 3
    whole = sum(stage["flops"] for stage in shown["stages"])
    assert [each["flops"] for each in arms["staged"]] == pytest.approx([whole] * 2)
    for arm in ("direct-matched", "scratch"):
        assert [each["flops"] for each in arms[arm]] == pytest.approx([whole] * 2, rel=0.01)
    # The test split is read once for each arm and seed, and for the root; no other model ever sees it.
    assert len(evaluated(finished.home, "test")) == 3 * 2 + 1
    assert [contrast["second"] for contrast in proof["contrasts"]] == ["direct-matched", "scratch"]
    table, _, rest = done.out.partition("\n\n")
    assert max(map(len, table.splitlines())) <= 80
    assert " ".join(rest.split()).startswith(proof["verdict"])
    report = (Path(shown["folder"]) / "report.html").read_text()
    assert "Its control arms" in report
    assert "ladder prove" in report

    finished.env["PYTHONPROFILEIMPORTTIME"] = "1"
    again = finished(*command)
    assert finished.json("show")["proof"]["verdict"] == proof["verdict"]
    assert all(each["reused"] == len(each["steps"]) for arm in finished.json("show")["proof"]["arms"] for each in arm["replicates"])
    imported = {line.rpartition("|")[2].strip() for line in again.err.splitlines() if line.startswith("import time:")}
    if (finished.home / "hardware.json").exists():  # else there is a GPU, which torch is asked about each time
        assert imported & {"torch", "transformers", "sklearn"} == set()


@pytest.mark.slow
def test_a_pilot_of_a_ladder_in_its_own_file_says_how_far_to_trust_it(finished, tiny):
    arms = "proof.arms=[direct,label-smoothing]"
    done = finished("prove", tiny, "--pilot", "--seeds", "2", arms, "stages.three.training.steps=40")
    shown = finished.json("show")
    assert shown["proof"]["pilot"]
    assert shown["proof"]["arms"][0]["replicates"][0]["steps"] == [10]
    assert "Pilot, a tenth of the steps:" in done.out
    assert any("not for the sign" in note for note in shown["proof"]["notes"])
    assert [stage["name"] for stage in shown["stages"]] == shown["planned"] == ["three"]
    assert shown["overrides"][-1] == "proof.pilot=true"


@pytest.mark.slow
def test_a_budget_is_that_of_the_whole_proof(finished, tiny):
    """The arms and seeds share it: each student has fewer steps than a run alone would give it."""
    long = ["stages.two.training.steps=20000", "stages.two.training.validate_every=1000", "proof.control=false"]
    command = ("prove", tiny, *long, "--arms", "staged,scratch", "--seeds", 2, "--budget")
    refused = finished(*command, "1s", code=2).err
    least = re.search(r"--budget: got '1s'; allowed: at least (\d+)s for tiny on this machine", refused)
    assert least, refused
    budget = f"{round(1.3 * int(least[1]))}s"
    finished(*command, budget)
    shown = finished.json("show")
    assert shown["budget"].startswith(f"{budget}: steps and held-out examples x 0.")
    steps = shown["proof"]["arms"][0]["replicates"][0]["steps"]
    alone = load(str(tiny), [*long, *fit_budget(load(str(tiny), long), budget, Home(finished.home)).overrides]).ladder
    assert 10 <= steps[1] < alone.stages[1].training.steps < 20000
    assert "held-out examples x 0." in (Path(shown["folder"]) / "report.html").read_text()


@pytest.mark.slow
def test_a_cancelled_proof_stops_at_a_checkpoint_and_goes_on(finished, tiny, tmp_path):
    arms, log = ("--arms", "staged,scratch", "--seeds", 2), tmp_path / "proof.log"
    slow = "stages.two.training.checkpoint_every=1", "stages.two.training.validate_every=1"
    process = finished.start_logged(log, "prove", tiny, *slow, *arms)

    def training() -> bool:
        assert process.poll() is None, log.read_text()
        return "seed 2 of 2" in log.read_text() and newest_checkpoint(finished.home) > 0

    wait_for(training, "a checkpoint of the second seed")
    said = finished("cancel")
    assert process.wait(15) == 130, log.read_text()
    cancelled = finished.json("show")
    assert (cancelled["status"], f"{cancelled['run']}: cancelled after " in said.out) == ("cancelled", True)
    assert half_written(finished.home) == []
    report = finished("report", cancelled["run"]).out
    assert "report.html" in report

    again = finished("prove", tiny, *slow, *arms)
    done = finished.json("show")
    assert (done["run"], done["status"]) == (cancelled["run"], "done")
    assert re.search(r": resumed from step \d+ ", again.err)
    assert [len(arm["replicates"]) for arm in done["proof"]["arms"]] == [2, 2]


@pytest.mark.parametrize(
    ("ladder", "options", "says"),
    [
        (TINY, ("--seeds", "1"), "proof.seeds: got 1; allowed: 2 to 1000. An interval over seeds needs at least two"),
        (TINY, ("--arms", "staged,dirct"), "proof.arms[1]: got 'dirct'; allowed: staged, staged-root, ancestors, direct"),
        (TINY, ("--arms", ""), "--arms: got ''; allowed: arms separated by commas: staged, staged-root"),
        (ONE, ("--arms", "staged,direct"), "proof.arms: got 'staged'; allowed: direct, scratch, label-smoothing and pruned-only"),
        (NARROW, ("--arms", "staged,direct-matched"), "proof.arms: got 'direct-matched'; allowed: an arm whose last student does not"),
        (TINY, ("--budget", "1"), "--budget: got '1'; allowed: a whole number with s, m, h or d"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_started(bare, tmp_path, ladder, options, says):
    path = tmp_path / "ladder.yaml"
    path.write_text(ladder)
    done = bare("prove", path, *options, code=2)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert says in errors[0]
    assert not list(bare.home.glob("runs/*"))


@pytest.mark.slow
def test_arms_that_a_cluster_trained_are_those_of_one_machine(finished, tiny, tmp_path):
    command = ("prove", tiny, "--arms", "staged,direct-matched", "--seeds", 2)
    finished(*command)
    alone = finished.json("show")
    here_alone: Any = LocalCluster
    with here_alone(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None) as cluster:
        cli = Cli(tmp_path / "cluster", {**finished.env, "LADDER_CLUSTER": cluster.scheduler_address})
        said = cli(*command, "compute.at_once=null").err
        shown = cli.json("show")
    assert "proof: 2 ladders of staged on 2 places of the cluster" in said
    assert "proof: 2 ladders of direct-matched on 2 places of the cluster" in said
    figures = [
        [[(each["seed"], each["fingerprints"], each["score"]) for each in arm["replicates"]] for arm in run["proof"]["arms"]]
        for run in (alone, shown)
    ]
    assert figures[0] == figures[1]
    assert all(each["reused"] for arm in shown["proof"]["arms"] for each in arm["replicates"])


@pytest.mark.slow
def test_a_ladder_whose_route_pilots_choose_is_compared_with_its_stages_as_written(finished, tiny):
    finished("prove", tiny, "route=auto", "routing={share: 0.5, least_steps: 3}", "--seeds", 2, "proof.control=false")
    arms = {arm["arm"]: arm["replicates"][0] for arm in finished.json("show")["proof"]["arms"]}
    assert {"staged", "direct-matched", "scratch", "auto"} <= arms.keys()
    assert len(arms["staged"]["steps"]) == 3
    assert arms["staged"]["reused"]
    assert arms["auto"]["route"]["winner"] is not None
    for matched in ("direct-matched", "auto"):
        assert arms[matched]["flops"] == pytest.approx(arms["staged"]["flops"], rel=0.1)
