"""`ladder clean` leaves kept runs reusable and running ones undisturbed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.flows.driver import actions, clean_environment, wait_for

ROOT = Path(__file__).parents[2]


def age(cli, run: str, days: int) -> None:
    """Make a run, and everything that is in the store now, older."""
    path = cli.home / "runs" / run / "record.json"
    record = json.loads(path.read_text())
    moment = datetime.now(UTC) - timedelta(days=days)
    path.write_text(json.dumps(record | {"started": moment.isoformat(), "finished": moment.isoformat()}))
    for folder in (cli.home / "store").glob("*/*"):
        os.utime(folder, (moment.timestamp(), moment.timestamp()))


def files(cli) -> dict[str, int]:
    """Bytes of each file of results, records and artifacts; not of the index of runs, which a command that only reads may write."""
    parts = (cli.home / "store", cli.home / "runs", cli.home / "mlflow" / "artifacts")
    found = (path for part in parts for path in part.rglob("*") if path.is_file() and path.name != "index.jsonl")
    return {str(path): path.stat().st_size for path in found}


def used(cli) -> int:
    """Bytes of all of them."""
    return sum(files(cli).values())


@pytest.mark.slow
def test_a_kept_run_is_shown_and_reused_and_the_rest_is_freed(cli, tiny):
    finished = cli  # not a copy: the artifacts in MLflow are its own
    finished("run", tiny)
    old = finished.json("show")["run"]
    finished("run", tiny, "stages.three.objective.alpha=0.25")
    kept = finished.json("show")
    for run in (old, kept["run"]):
        age(finished, run, 40)
    age(finished, kept["run"], 5)
    for folder in (finished.home / "store").glob("*/*"):
        moment = time.time() - 40 * 86400
        os.utime(folder, (moment, moment))

    before = used(finished)
    tried = finished.json("clean", "--older-than", "30d", "--dry-run")
    assert used(finished) == before
    done = finished.json("clean", "--older-than", "30d")
    assert done["freed"] == tried["freed"]
    assert done["freed_bytes"] == before - used(finished) > 0
    # Of the old run only its third stage was its own: the rest is the kept one's, too, and so are the models that MLflow keeps with it.
    assert {(p["kind"], re.sub(r"-[0-9a-f]{20}$|.*/", "", p["name"])) for p in done["freed"]} == {
        ("stage", "three"),
        ("evaluation", "three"),
        ("audit", "three"),
        ("bench", "three"),
        ("mlflow", "three"),
    }
    assert "freed 0 B" in finished("clean", "--older-than", "30d").out

    assert finished.json("show", kept["run"]) == {
        **kept,
        "started": finished.json("show")["started"],
        "finished": finished.json("show")["finished"],
    }
    again = finished("run", tiny, "stages.three.objective.alpha=0.25")
    assert actions(again.err) == dict.fromkeys(("teacher", "one", "two", "three"), "reused")
    assert actions(finished("run", tiny).err)["three"] == "computed"

    kept = finished.json("clean", "--older-than", "0d")  # the newest version is the challenger
    assert {piece["why"] for piece in kept["kept"] if piece["kind"] == "run"} == {"promoted: tiny@challenger"}
    gone = finished.json("clean", "--older-than", "0d", "--no-keep-promoted")
    assert gone["freed_bytes"] > 0
    assert finished.json("runs") == []
    assert not list((finished.home / "store").glob("*/*"))
    assert not list((finished.home / "mlflow" / "artifacts").rglob("*.safetensors"))
    assert set(actions(finished("run", tiny).err).values()) == {"computed"}


def test_a_copy_of_a_home_leaves_the_original_alone(finished, undisturbed):
    before = files(undisturbed)
    done = finished.json("clean", "--older-than", "0d", "--no-keep-promoted")
    assert "mlflow gc" in str(done["notes"])
    assert {piece["kind"] for piece in done["freed"]} == {"data", "teacher", "stage", "evaluation", "audit", "bench", "run", "mlflow"}
    assert sum(piece["bytes"] for piece in done["freed"] if piece["kind"] == "mlflow") == 0
    # Runs in other copies meanwhile add artifacts to it: MLflow keeps an experiment's files where the experiment was made.
    assert before.items() <= files(undisturbed).items()


def test_bad_ages(bare):
    for text in ("30", "yesterday", "-3d"):
        refused = bare("clean", f"--older-than={text}", code=2)
        assert f"--older-than: got {text!r}; allowed: a whole number with m, h, d or w" in refused.err
    bare("clean", code=2)
    assert "freed 0 B" in bare("clean", "--older-than", "30d").out


CLEAN = """
import time
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from tasks.lifecycle.clean import clean
rounds = 0
while True:
    clean(home(), 0)
    rounds += 1
    print(rounds, flush=True)
    time.sleep(0.1)
"""


@pytest.mark.slow
def test_cleaning_does_not_disturb_running_runs(cli, tiny, tmp_path, undisturbed):
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    cli.home.mkdir(parents=True, exist_ok=True)
    with (tmp_path / "clean.log").open("w") as log:
        cleaner = subprocess.Popen([sys.executable, "-c", CLEAN], env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for overrides in ([], [], ["stages.two.objective.alpha=0.25"], ["stages.three.training.steps=30"]):
            cli("run", tiny, *overrides)
        assert cleaner.poll() is None, (tmp_path / "clean.log").read_text()
        log, killed = tmp_path / "killed.log", cli
        process = killed.start_logged(log, "run", tiny)
        wait_for(lambda: "two: computed" in log.read_text() or process.poll() is not None, "stage two")
        process.kill()
        process.wait()
        cli("run", tiny)
    finally:
        os.killpg(cleaner.pid, signal.SIGTERM)
        cleaner.wait(20)
    rounds = int((tmp_path / "clean.log").read_text().splitlines()[-1])
    print(f"{rounds} cleanings beside five runs")
    assert rounds > 10
    found = [json.loads(path.read_text()) for path in (cli.home / "store" / "stage").glob("*/record.json")]
    hashes = undisturbed.hashes()
    assert {record["name"]: record["weights_sha256"] for record in found}.items() <= hashes.items()
