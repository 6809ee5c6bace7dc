"""Killed anywhere, the same command goes on from there and ends with the same weights, to the last bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace as Helpers

import pytest


def begin(cli, log: Path, *args) -> subprocess.Popen[str]:
    with log.open("w") as file:
        return cli.start(*args, stdout=file, stderr=file)


def checkpoints_of_stage_two(cli, log: Path, wanted: int) -> bool:
    steps = sorted(path.name for path in (cli.home / "store" / "work").glob("*/step-*"))
    return "two: computed" in log.read_text() and len(steps) >= wanted


def loss_points(cli, stage: str) -> list[int]:
    from mlflow import MlflowClient

    shown = cli.json("show")
    client = MlflowClient(shown["mlflow_uri"])
    run_id = next(s["mlflow_run_id"] for s in shown["stages"] if s["name"] == stage)
    return [point.step for point in client.get_metric_history(run_id, "train/loss")]


def test_a_run_killed_in_stage_two_is_continued_to_the_same_weights(cli, tiny, undisturbed, tmp_path, helpers: Helpers):
    log = tmp_path / "killed.log"
    process = begin(cli, log, "run", tiny)
    helpers.wait_for(lambda: checkpoints_of_stage_two(cli, log, 1) or process.poll() is not None, "a checkpoint of stage two")
    time.sleep(random.uniform(0, 0.5))
    assert process.poll() is None, "the run ended before it was killed"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert helpers.half_written(cli.home) == []
    killed = cli.json("show")
    assert (killed["status"], [s["name"] for s in killed["stages"]]) == ("interrupted", ["one"])
    assert cli.json("plan", tiny)["stages"][1]["action"] == "resume"

    again = cli("run", tiny)
    shown = cli.json("show")
    assert helpers.actions(again.err) == {"teacher": "reused", "one": "reused", "two": "resumed", "three": "computed"}
    assert (shown["run"], shown["mlflow_run_id"]) == (killed["run"], killed["mlflow_run_id"])
    assert shown["status"] == "done"
    assert 0 < shown["stages"][1]["resumed_at"] < 120
    assert cli.hashes() == undisturbed.hashes()
    assert helpers.half_written(cli.home) == []
    assert list((cli.home / "store" / "work").iterdir()) == []
    assert Counter(loss_points(cli, "two")) == Counter(range(1, 121))


def test_ctrl_c_in_stage_two_is_continued_too(bare, tiny, undisturbed, tmp_path, helpers: Helpers):
    import psutil

    log = tmp_path / "interrupted.log"
    process = begin(bare, log, "run", tiny)
    helpers.wait_for(lambda: checkpoints_of_stage_two(bare, log, 1) or process.poll() is not None, "a checkpoint of stage two")
    servers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: a server in our group would be gone before the run has noted its end
    assert process.wait(120) == 130
    assert psutil.wait_procs(servers, timeout=60)[1] == []
    said = log.read_text()
    assert "Traceback" not in said
    assert "interrupted; what is finished is kept, the same command goes on from there" in said
    assert bare.json("show")["status"] == "interrupted"
    assert helpers.half_written(bare.home) == []

    again = bare("run", tiny)
    assert helpers.actions(again.err) == {"teacher": "reused", "one": "reused", "two": "resumed", "three": "computed"}
    assert bare.hashes() == undisturbed.hashes()


PUBLISH = """
import sys, time
from pathlib import Path
from conf.home import home
from tasks.store import Store

def write(folder):
    (folder / "half").write_text("half of it")
    print(folder, flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "rest").write_text("the rest")

store = Store(home())
with store.lock("f" * 64):
    found = store.publish("stage", "tried", {"kind": "test"}, "f" * 64, {"run": "r", "ladder": "l"}, write)
print(found.folder)
"""


def test_nothing_shows_of_a_publication_that_was_killed(tmp_path, helpers: Helpers):
    env = helpers.clean_environment(LADDER_HOME=str(tmp_path))
    command = [sys.executable, "-c", PUBLISH]
    process = subprocess.Popen([*command, "600"], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    aside = Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()
    assert (aside / "half").is_file(), "it was killed in the middle of writing"
    assert list((tmp_path / "store" / "stage").glob("*")) == []

    again = subprocess.run([*command, "0"], env=env, capture_output=True, text=True, timeout=60, check=True)
    published = Path(again.stdout.splitlines()[-1])
    assert sorted(p.name for p in published.iterdir()) == ["half", "manifest.json", "rest"]
    assert [p.name for p in (tmp_path / "store" / "stage").iterdir()] == [published.name]


@pytest.mark.parametrize("name", ["SIGKILL", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_the_embedded_server_dies_with_the_run(bare, tiny, tmp_path, name, helpers: Helpers):
    import psutil

    log = tmp_path / "run.log"
    process = begin(bare, log, "run", tiny, "teacher.training.steps=5000")
    helpers.wait_for(lambda: "teacher: computed" in log.read_text() or process.poll() is not None, "the training to begin")
    servers = psutil.Process(process.pid).children(recursive=True)
    assert any("embedded.py" in part for server in servers for part in server.cmdline())
    process.send_signal(getattr(signal, name))
    assert process.wait(120) == (-signal.SIGKILL if name == "SIGKILL" else 130)
    assert psutil.wait_procs(servers, timeout=60)[1] == []
    assert "Traceback" not in log.read_text()
