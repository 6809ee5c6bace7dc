"""Many runs at once: one training at a time on a machine, runs queued at a server, runs that begin with one."""

from __future__ import annotations

import itertools
import os
import re
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.flows.driver import newest_checkpoint, wait_for
from tests.flows.served import Start, offer

WAITS = "waiting for its turn: another training runs on this machine"
LONG = "teacher.training.steps=200000"


def begin(cli, log: Path, *args):
    return cli.start_logged(log, "run", *args)


@pytest.mark.slow
def test_ten_runs_started_at_once_all_end_one_training_at_a_time(cli, tiny, tmp_path):
    began = time.monotonic()
    logs = [tmp_path / f"{seed}.log" for seed in range(10)]
    processes = [begin(cli, log, tiny, f"seed={seed}") for seed, log in enumerate(logs)]
    codes = [process.wait(540) for process in processes]
    print(f"ten runs ended in {time.monotonic() - began:.0f} s")
    texts = [log.read_text() for log in logs]
    assert codes == [0] * 10, [text for code, text in zip(codes, texts, strict=True) if code]
    assert not any("Traceback" in text for text in texts)
    assert sum(WAITS in text for text in texts) >= 5
    assert all(text.count(WAITS) < 60 for text in texts), "no flood"

    trainings = sorted(trainings_of(cli))
    assert len(trainings) == 10 * 4
    for (_, ended), (started, _) in itertools.pairwise(trainings):
        assert started >= ended, "two trainings at once"


def trainings_of(cli) -> list[tuple[int, int]]:
    """First and last point of each training's loss in MLflow, in milliseconds."""
    from mlflow import MlflowClient

    shown = cli.json("show")
    client = MlflowClient(shown["mlflow_uri"])
    experiment = client.get_run(shown["mlflow_run_id"]).info.experiment_id
    found = []
    for run in client.search_runs([experiment], "tags.`ladder.stage` != ''", max_results=1000):
        stamps = [point.timestamp for point in client.get_metric_history(run.info.run_id, "train/loss")]
        found += [(min(stamps), max(stamps))] if stamps else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_waits_ends_at_once_and_one_whose_turn_it_is_goes_on(cli, tiny, tmp_path, name):
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    training = begin(cli, first, tiny, LONG)
    wait_for(lambda: newest_checkpoint(cli.home) or training.poll() is not None, "a checkpoint")
    waiting = begin(cli, second, tiny, LONG, "seed=1")
    wait_for(lambda: WAITS in second.read_text() or waiting.poll() is not None, "the second to wait")
    holder = re.search(rf"{WAITS} \((\S+)\)", second.read_text())
    assert holder is not None
    assert holder[1] in first.read_text()
    began = time.monotonic()
    os.kill(waiting.pid, getattr(signal, name))
    assert waiting.wait(60) == 130
    seconds = time.monotonic() - began
    print(f"{name}: a waiting run ended in {seconds:.1f} s")
    assert seconds < 30
    assert "Traceback" not in second.read_text()
    assert training.poll() is None

    third = begin(cli, tmp_path / "third.log", tiny, "seed=2")
    wait_for(lambda: WAITS in (tmp_path / "third.log").read_text() or third.poll() is not None, "the third to wait")
    began = time.monotonic()
    training.kill()  # the kernel lets the slot go
    training.wait()
    wait_for(lambda: "teacher/" in str(list((cli.home / "store").glob("teacher/*"))), "the third to train", 60)
    print(f"SIGKILL: the next in line had trained its teacher {time.monotonic() - began:.1f} s later")
    assert third.wait(200) == 0


@pytest.mark.slow
def test_no_limit(cli, tiny, tmp_path):
    first = tmp_path / "first.log"
    training = begin(cli, first, tiny, LONG)
    wait_for(lambda: newest_checkpoint(cli.home) or training.poll() is not None, "a checkpoint")
    ended = cli("run", tiny, "seed=1", "compute.at_once=null")
    assert WAITS not in ended.err
    assert training.poll() is None
    assert "Traceback" not in first.read_text()


def ends_of(cli) -> list[tuple[str, str]]:
    """Name and status of every ladder run in MLflow."""
    with closing(sqlite3.connect(cli.home / "mlflow" / "mlflow.db")) as mlflow:
        return mlflow.execute("select value, status from runs join tags using (run_uuid) where key = 'ladder.run'").fetchall()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_runs_that_begin_while_ladder_serve_starts_all_end(done, tiny, tmp_path, start: Start):
    before = len(done.json("runs"))
    logs = [tmp_path / f"eight-{number}.log" for number in range(8)]
    began: list = []

    def begin_eight() -> None:
        for number, log in enumerate(logs):
            began.append(begin(done, log, tiny, "--name", f"eight-{number}"))
            time.sleep(number)  # the first meet no server, the last, after half a minute, a whole one

    beside = threading.Thread(target=begin_eight)
    beside.start()
    server = start(done)
    beside.join()
    codes = [process.wait(900) for process in began]
    texts = [log.read_text() for log in logs]
    assert codes == [0] * 8, [text for code, text in zip(codes, texts, strict=True) if code]
    assert not any("Traceback" in text for text in texts)
    print(f"{sum('embedded' in text for text in texts)} of 8 had begun before the server answered")

    records = done.json("runs")
    assert len(records) == before + 8
    assert {record["run"]: record["status"] for record in records[:8]} == {f"eight-{number}": "done" for number in range(8)}
    assert sorted(run for run, status in ends_of(done) if status == "FINISHED" and run.startswith("eight-")) == [
        f"eight-{number}" for number in range(8)
    ]
    assert "RUNNING" not in dict(ends_of(done)).values()
    top = [run for run in server.flow_runs().values() if run["parent_task_run_id"] is None and run["name"].startswith("eight-")]
    assert sorted((run["name"], run["state"]["name"]) for run in top) == [(f"eight-{number}", "Completed") for number in range(8)]
    opened = [run["name"] for run in server.flow_runs().values() if run["state"]["type"] not in ("COMPLETED", "CANCELLED", "FAILED")]
    assert opened == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_queued_runs_through_one_place_all_end_in_order_and_once(done, tiny, tmp_path, start: Start):
    server = start(done, "--deployments", offer(tmp_path, more="limit: 1"), LADDER_ROOTS=str(tiny.parent))
    began = time.monotonic()
    names = [f"queued-{number:02}" for number in range(50)]
    ids = [server.start_run("distill/distill", ladder=str(tiny), name=name) for name in names]

    def states() -> list[str]:
        known = server.ask("POST", "/flow_runs/filter", json={"flow_runs": {"id": {"any_": ids}}})
        return [run["state"]["type"] for run in known]

    wait_for(lambda: not {"SCHEDULED", "PENDING", "RUNNING"} & set(states()), "fifty runs", 3300)
    assert states() == ["COMPLETED"] * 50, server.text
    print(f"fifty runs ended in {time.monotonic() - began:.0f} s")

    records = {record["run"]: record for record in done.json("runs") if record["run"].startswith("queued-")}
    assert sorted(records) == names, "none lost, none twice"
    assert {record["status"] for record in records.values()} == {"done"}
    assert sorted(run for run, status in ends_of(done) if run in records) == names
    known = server.ask("POST", "/flow_runs/filter", json={"flow_runs": {"id": {"any_": ids}}})
    spans = {run["id"]: (run["start_time"], run["end_time"], run["run_count"]) for run in known}
    for first, second in itertools.pairwise(ids):
        assert spans[first][0] < spans[second][0], "out of order"
        assert spans[first][1] <= spans[second][0], "two at once"
    assert {count for _, _, count in spans.values()} == {1}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_that_ask_hold_no_place_and_what_a_schedule_starts_meanwhile_is_skipped(done, tiny, tmp_path, start: Start):
    asking = tmp_path / "asking.yaml"
    asking.write_text(Path(tiny).read_text().rstrip() + "\n    gate: {min_parent_retention: 1.9, policy: ask}\n")
    file = tmp_path / "deployments.yaml"
    scheduled = "{name: scheduled, flow: distill, concurrency_limit: 1, beyond_limit: skip}"
    file.write_text(f"limit: 2\ndeployments: [{{name: distill, flow: distill}}, {scheduled}]")
    server = start(done, "--deployments", file, LADDER_ROOTS=os.pathsep.join([str(tiny.parent), str(tmp_path)]))
    paused = {name: server.start_run("distill/distill", ladder=str(asking), name=name) for name in ("asks-1", "asks-2")}
    wait_for(lambda: {server.state(run) for run in paused.values()} == {"Paused"}, "two questions, which take all places")

    training = server.start_run("distill/scheduled", ladder=str(tiny), overrides=[LONG], name="long")
    wait_for(lambda: newest_checkpoint(done.home), "the run of a schedule to train, though all places are taken")
    late = server.start_run("distill/scheduled", ladder=str(tiny), name="late")
    wait_for(lambda: server.state(late) not in ("Scheduled", "Pending", "Running", "AwaitingConcurrencySlot"), "the second to be skipped")
    assert server.ask("GET", f"/flow_runs/{late}")["state"]["type"] == "CANCELLED"
    print(server.ask("GET", f"/flow_runs/{late}")["state"])
    assert "late" not in {record["run"] for record in done.json("runs")}
    assert server.state(training) == "Running"
    assert {server.state(run) for run in paused.values()} == {"Paused"}

    done("cancel", "long")
    wait_for(lambda: server.state(training) == "Cancelled", "the training to end")
    for name in paused:
        done("answer", name, "approve")
    wait_for(lambda: {server.state(run) for run in paused.values()} == {"Completed"}, "both to go on")
    ended = {record["run"]: record["status"] for record in done.json("runs")}
    assert (ended["asks-1"], ended["asks-2"], ended["long"]) == ("done", "done", "cancelled")
