"""Runs in a real MLflow on SQLite: tree, resume, lineage, processes, refusals."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conf.errors import LadderError, UserError
from conf.home import Home
from conf.secrets import masked
from models.data.corpus import Corpus, CorpusInfo, Split, write_corpus
from tasks.records.run import Retention, StageRecord
from tasks.tracking.client import run_url, tracking_uri, ui_command
from tasks.tracking.curves import CurveLogger
from tasks.tracking.runs import StageRun
from tasks.tracking.tracker import Tracker, connect
from tests.factories import model_record
from tests.flows.driver import clean_environment, run_together

pytestmark = pytest.mark.processes

TRAINING = "?workflowType=machine_learning"  # the half of MLflow's pages that lists runs
SETTINGS = {"training": {"steps": 20, "warmup": 0.05}, "objective": {"alpha": {"kind": "constant", "end": None}}, "notes": "x" * 900}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("with space") / ".ladder")


@pytest.fixture(scope="module")
def tracker(home: Home) -> Tracker:
    return connect(home)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def record_of(name: str, **changes: object) -> StageRecord:
    figures = {
        "metrics": {"nll": 1.5, "bits_per_byte": 2.2, "agreement_parent": 0.9, "kl_parent": 0.05, "perplexity": 4.5},
        "slices": {"json": {"nll": 1.4, "count": 7}},
        "retention": Retention(parent=0.97, root=0.95),
        "gate": "passed",
    }
    costs = {"steps": 20, "tokens": 640, "flops": 2e9, "flops_per_token": 1e3, "seconds": 1.5}
    return model_record(name, **{**figures, **costs, **changes})


def open_ladder(tracker: Tracker, run: str, **changes: object) -> str:
    plain = {
        "params": {"seed": 0},
        "environment": {"python": "3.11.7", "torch": "2.13.0", "git_commit": "abc123", "packages": {"numpy": "2"}},
    }
    return tracker.open_ladder(run, "tiny", "hash-1", "name: tiny\n", **(plain | changes))


def send(tracker: Tracker, stage: StageRun, steps: Iterable[tuple[int, dict[str, float]]]) -> None:
    with CurveLogger("s", tracker, lambda: stage) as curves:
        for step, values in steps:
            curves.add(step, values)


def history(tracker: Tracker, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tracker.client.get_metric_history(run_id, key)]


def test_one_tree_read_back(tracker: Tracker, home: Home, tmp_path: Path) -> None:
    parent = open_ladder(tracker, "run-tree", tags={"prefect.flow_run_id": "p-1"})
    teacher = tracker.open_stage(parent, "teacher", "fp-teacher", settings=SETTINGS)
    teacher_model = tracker.finish_stage(teacher.run_id, record_of("teacher", gate=None), workload="causal-lm", folder=None)
    stage = tracker.open_stage(
        parent, "100k", "fp-100k", settings=SETTINGS, teacher_run_ids=[teacher.run_id], tags={"prefect.flow_run_id": "p-2"}
    )
    send(tracker, stage, [(step, {"train/loss": 1 / step, "train/kd": 2 / step}) for step in range(1, 1501)])
    model = tracker.finish_stage(stage.run_id, record_of("100k"), workload="causal-lm", folder=None)
    report = tmp_path / "report.html"
    report.write_text("<html></html>")
    tracker.log_artifact(parent, report)
    tracker.close(parent, "FINISHED")

    client = tracker.client
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert experiment.artifact_location == (home.mlflow / "artifacts" / "tiny").as_uri()
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    assert {run.info.run_name: run.info.status for run in children} == {"teacher": "FINISHED", "100k": "FINISHED"}
    top = client.get_run(parent)
    assert (top.info.run_name, top.info.status) == ("run-tree", "FINISHED")
    wanted = {"ladder.run": "run-tree", "ladder.fingerprint": "hash-1", "mlflow.source.git.commit": "abc123", "environment.torch": "2.13.0"}
    assert wanted.items() <= top.data.tags.items()
    assert {file.path for file in client.list_artifacts(parent)} == {"ladder.yaml", "environment.json", "report.html"}

    run = client.get_run(stage.run_id)
    tags = {"ladder.stage": "100k", "ladder.teacher_run_id": teacher.run_id, "ladder.gate": "passed", "prefect.flow_run_id": "p-2"}
    assert tags.items() <= run.data.tags.items()
    figures = {"valid/nll": 1.5, "valid/agreement": 0.9, "valid/kl_to_teacher": 0.05, "cost/flops": 2e9, "retention/root": 0.95}
    assert figures.items() <= run.data.metrics.items()
    assert run.data.params["training.steps"] == "20"
    assert run.data.params["objective.alpha.end"] == "null"
    assert len(run.data.params["notes"]) == 500
    assert len(history(tracker, stage.run_id, "train/loss")) == 1500
    slices = Path(client.download_artifacts(stage.run_id, "slices.json", str(tmp_path)))
    assert json.loads(slices.read_text()) == {"json": {"nll": 1.4, "count": 7}}

    assert [one.model_id for one in run.inputs.model_inputs] == [teacher_model]
    assert [one.model_id for one in run.outputs.model_outputs] == [model]
    assert str(client.get_logged_model(model).status) == "READY"
    assert {metric.key for metric in client.get_logged_model(model).metrics or []} >= {"valid/nll", "retention/parent"}


def test_a_reused_model_is_linked_and_makes_no_run(tracker: Tracker) -> None:
    first = open_ladder(tracker, "run-made")
    made = tracker.open_stage(first, "100k", "fp-link", settings=SETTINGS)
    record = record_of("100k", fingerprint="fp-link")
    model_id = tracker.finish_stage(made.run_id, record, workload="causal-lm", folder=None)
    again = open_ladder(tracker, "run-again")
    for original in (made.run_id, None, "0" * 32):  # as recorded, or found by its fingerprint
        assert tracker.link_reused(again, record, original) == made.run_id
    run = tracker.client.get_run(again)
    assert run.data.tags["ladder.reused.100k"] == made.run_id
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    assert not tracker.is_child(made.run_id, again)
    assert tracker.is_child(made.run_id, first)
    judged_otherwise = record.model_copy(update={"metrics": {**record.metrics, "nll": 1.25}})
    assert tracker.link_reused(again, judged_otherwise, made.run_id) is None, "its figures are kept, in a run of its own"
    assert tracker.link_reused(again, record_of("100k", fingerprint="fp-none"), None) is None


def test_a_ladders_run_carries_the_headline_of_each_model(tracker: Tracker) -> None:
    parent = open_ladder(tracker, "run-headline")
    models = [record_of("teacher", gate=None), record_of("100k", decision="approved by ann")]
    for _ in range(2):  # at each model, and at the end
        tracker.log_headline(parent, models, ["a note"])
    run = tracker.client.get_run(parent)
    kept = {name.partition("/")[2] for name in run.data.metrics if name.startswith("100k/")}
    assert (kept, len(run.data.metrics)) == ({"bits_per_byte", "of_parent", "of_root"}, 6)
    assert len(history(tracker, parent, "100k/of_root")) == 1
    assert (run.data.tags["ladder.gate.100k"], run.data.tags["ladder.decision.100k"]) == ("passed", "approved by ann")
    assert run.data.tags["mlflow.note.content"].startswith("a note\n\n| model |")


def test_the_machines_load_is_recorded_during_a_training(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    stage = tracker.open_stage(open_ladder(tracker, "run-load"), "s", "fp-load", settings={})
    with CurveLogger("s", tracker, lambda: stage, system_metrics=True):
        until = time.monotonic() + 20
        while "system/cpu_utilization_percentage" not in tracker.client.get_run(stage.run_id).data.metrics:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_an_interrupted_run_goes_on_without_duplicates(tracker: Tracker) -> None:
    parent = open_ladder(tracker, "run-cut")
    first = tracker.open_stage(parent, "100k", "fp-cut", settings={"steps": 20})
    send(tracker, first, [*((step, {"train/loss": float(step)}) for step in range(1, 13)), (10, {"valid/nll": 1.0})])
    # The process dies here: nothing is closed. A second one goes on from the checkpoint of step 10.
    assert open_ladder(tracker, "run-cut", continue_id=parent) == parent
    second = tracker.open_stage(parent, "100k", "fp-cut", settings={"steps": 20, "new": 1})
    assert (second.run_id, second.state) == (first.run_id, "continued")
    assert second.last_steps == {"train/loss": 12, "valid/nll": 10}
    send(tracker, second, [(step, {"train/loss": float(step)} | ({"valid/nll": 0.9} if step == 20 else {})) for step in range(11, 21)])
    for _ in range(2):  # killed between the record and its closing, so done again
        tracker.finish_stage(second.run_id, record_of("100k"), workload="causal-lm", folder=None)

    assert history(tracker, first.run_id, "train/loss") == [(step, float(step)) for step in range(1, 21)]
    assert history(tracker, first.run_id, "valid/nll") == [(10, 1.0), (20, 0.9), (20, 1.5)]
    run = tracker.client.get_run(first.run_id)
    assert run.data.params == {"steps": "20", "new": "1"}
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    third = tracker.open_stage(parent, "100k", "fp-cut", settings={})
    assert (third.run_id, third.state) == (first.run_id, "finished")


def test_a_record_that_was_lost_is_begun_anew(tracker: Tracker) -> None:
    run_id = open_ladder(tracker, "run-lost", continue_id="0" * 32)
    assert tracker.client.get_run(run_id).info.status == "RUNNING"


def test_a_deleted_experiment_is_restored(tracker: Tracker) -> None:
    experiment_id = tracker.experiment("thrown-away")
    run_id = tracker.open_ladder("r", "thrown-away", "h", "", params={}, environment={})
    tracker.client.delete_experiment(experiment_id)
    assert tracker.experiment("thrown-away") == experiment_id
    tracker.client.delete_experiment(experiment_id)
    assert tracker.open_ladder("r", "thrown-away", "h", "", params={}, environment={}, continue_id=run_id) == run_id
    assert tracker.client.get_experiment(experiment_id).lifecycle_stage == "active"


def test_the_dataset_is_an_input(tracker: Tracker, tmp_path: Path) -> None:
    one = Split(np.arange(8, dtype=np.uint16), np.array([0, 8]), np.array([-1]), np.zeros(1, np.int32), np.array([7]))
    counts = {"train": 1, "valid": 1, "test": 1}
    info = CorpusInfo("causal-lm", 4, 259, 256, 257, (), ("json",), None, counts, {"train": 8, "valid": 8, "test": 8})
    write_corpus(tmp_path, info, {"train": one, "valid": one, "test": one})
    parent = open_ladder(tracker, "run-data")
    for _ in range(2):
        tracker.log_dataset(parent, "python-stdlib", Corpus(tmp_path, "a" * 64))
    (found,) = tracker.client.get_run(parent).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.source_type) == ("python-stdlib", "a" * 36, "local")
    assert json.loads(found.dataset.profile or "")["tokens"] == {"train": 8, "valid": 8, "test": 8}


TOGETHER = """
import sys
from pathlib import Path
from conf.home import Home
from tasks.tracking.client import run_url, tracking_uri, ui_command
from tasks.tracking.runs import StageRun
from tasks.tracking.tracker import Tracker, connect

TRAINING = "?workflowType=machine_learning"  # the half of MLflow's pages that lists runs
from tasks.tracking.curves import CurveLogger
tracker = connect(Home(Path(sys.argv[1])))
parent = tracker.open_ladder(f"run-{sys.argv[2]}", "together", "h", "name: x", params={"a": 1}, environment={"python": "3"})
stage = tracker.open_stage(parent, "s", "fp", settings={"b": 2})
with CurveLogger("s", tracker, lambda: stage) as curves:
    for step in range(50):
        curves.add(step, {"train/loss": 1.0})
tracker.close(stage.run_id, "FINISHED")
tracker.close(parent, "FINISHED")
"""


def test_four_processes_begin_together_on_a_fresh_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "fresh")
    ended = run_together(TOGETHER, [(home.root, i) for i in range(4)], [clean_environment()] * 4, tmp_path)
    assert [(done.code, done.out, done.err) for done in ended] == [(0, "", "")] * 4  # quiet: no migrations, no "created experiment"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh"]  # no mlruns in the working directory
    tracker = connect(home)
    runs = tracker.client.search_runs([tracker.experiment("together")])
    assert sorted(run.info.run_name or "" for run in runs) == ["run-0", "run-1", "run-2", "run-3", *["s"] * 4]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_server_that_does_not_answer_is_refused_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as caught:
        connect(home)
    assert time.monotonic() - started < 8
    assert str(port) in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("uri", ["/nowhere/mlruns", "nonsense://x", "postgresql+nodriver://h/db"])
def test_an_address_that_is_none_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        connect(home)


def test_a_locked_database_is_named_and_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("tasks.runtime.sqlite_files.LOCK_SECONDS", 0.1)
    home = Home(tmp_path)
    home.mlflow.mkdir()
    with closing(sqlite3.connect(home.mlflow / "mlflow.db", isolation_level=None)) as other:
        other.execute("create table anything (name text)")
        other.execute("begin exclusive")
        with pytest.raises(LadderError, match=r"mlflow\.db\) is locked by another process .* It is healthy"):
            connect(home)


def test_addresses(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(home) == f"sqlite:///{home.mlflow}/mlflow.db"
    assert ui_command("sqlite:////a b/mlflow.db") == "mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'"
    assert ui_command("http://h:5000") == "http://h:5000"
    assert run_url("http://h:5000/", "3", "r") == f"http://h:5000/#/experiments/3/runs/r{TRAINING}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h:5000")
    assert tracking_uri(home) == "http://h:5000"


def test_importing_the_record_does_not_import_mlflow() -> None:
    code = "import sys, tasks.tracking.tracker; sys.exit(any(m in sys.modules for m in ('mlflow', 'torch', 'sqlalchemy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://ann:s3cret@h:5000/x", "http://ann:***@h:5000/x"),
        ("postgresql+psycopg2://ann:s3c/re?t@h/db", "postgresql+psycopg2://ann:***@h/db"),
        ("postgresql://ann:s3@cret@h/db", "postgresql://ann:***@h/db"),
        ("postgresql://h/db?user=ann&password=s3cret&sslmode=require", "postgresql://h/db?user=ann&password=***&sslmode=require"),
        ("http://:s3cret@h", "http://:***@h"),
        ("http://h:5000", "http://h:5000"),
        ("https://s3cret@h:5000", "https://***@h:5000"),
        ("postgresql://ann@h/db", "postgresql://ann@h/db"),
        ("sqlite:////a b/mlflow.db", "sqlite:////a b/mlflow.db"),
    ],
)
def test_a_password_is_never_shown(uri: str, shown: str) -> None:
    assert masked(uri) == shown
    assert masked(f"API request to {uri} failed, see {uri}.") == f"API request to {shown} failed, see {shown}."
    assert shown in ui_command(uri)


def test_a_link_names_nobody() -> None:
    assert run_url("http://ann:s3cret@h:5000/", "3", "r") == f"http://h:5000/#/experiments/3/runs/r{TRAINING}"


def test_a_refused_address_does_not_tell_its_password(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("http://ann:s3cret@127.0.0.1:9", "postgresql+nodriver://ann:s3cret@h/db", "nonsense://ann:s3cret@h"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as caught:
            connect(home)
        assert "s3cret" not in str(caught.value)
        assert "ann:***@" in str(caught.value)
