"""One training at a time on a machine: concurrent runs end without overlap."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.flows.driver import newest_checkpoint, wait_for

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
