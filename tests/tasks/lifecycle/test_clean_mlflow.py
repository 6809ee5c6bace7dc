"""Cleaning in MLflow: runs of deleted runs go, models that others use stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.home import Home
from tasks.lifecycle.clean import clean
from tasks.records.run import RunRecord, StageRecord
from tasks.registry.versions import list_versions, register
from tasks.store.store import SHOWN
from tasks.tracking.tracker import Tracker, connect
from tests.tasks.homes import AGE, NEW, OLD, model, ran, results

pytestmark = pytest.mark.thorough


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


class TestMlflow:
    @pytest.fixture
    def tracker(self, home: Home, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        home.mlflow.mkdir(parents=True)
        shutil.copy(empty_database, home.mlflow / "mlflow.db")
        return connect(home)

    def recorded(self, home: Home, tracker: Tracker, run: str, models: list[StageRecord], moment: float = OLD) -> RunRecord:
        """A run with its record in MLflow; a model that an earlier run has recorded is linked."""
        parent = tracker.open_ladder(run, "tiny", "h", "a: 1", params={}, environment={})
        done = []
        for known in models:
            child = tracker.open_stage(parent, known.name, known.fingerprint, settings={})
            folder = next(path for kind in ("stage", "teacher") for path in (home.store / kind).glob(f"*-{known.fingerprint[:SHOWN]}"))
            reused = known.model_copy(update={"reused": run != "a"})
            tracker.finish_stage(child.run_id, reused, workload="causal-lm", folder=folder)
            done.append(known.model_copy(update={"mlflow_run_id": child.run_id}))
        tracker.close(parent, "FINISHED")
        return ran(home, run, done, moment=moment, mlflow_run_id=parent, mlflow_uri=tracker.uri)

    def runs(self, tracker: Tracker) -> set[str]:
        from mlflow.entities import ViewType

        found = tracker.client.search_runs([tracker.experiment("tiny")], "", ViewType.ALL)
        return {f"{run.info.run_name}" for run in found}

    def test_runs_and_artifacts_of_an_old_run_go_for_good(self, home: Home, tracker: Tracker) -> None:
        self.recorded(home, tracker, "a", [model(home, "teacher", "a")])
        self.recorded(home, tracker, "b", [model(home, "young", "b", moment=NEW, seed=9)], NEW)
        assert self.runs(tracker) == {"a", "teacher", "b", "young"}
        artifacts = home.mlflow / "artifacts" / "tiny"
        before = sum(path.stat().st_size for path in artifacts.rglob("*") if path.is_file())
        tried = clean(home, AGE, dry_run=True)
        assert self.runs(tracker) == {"a", "teacher", "b", "young"}
        cleaned = clean(home, AGE)
        assert cleaned.freed == tried.freed
        assert self.runs(tracker) == {"b", "young"}
        after = sum(path.stat().st_size for path in artifacts.rglob("*") if path.is_file())
        assert before - after == sum(piece.bytes for piece in cleaned.freed if piece.kind == "mlflow") > 0
        assert len(tracker.client.search_logged_models([tracker.experiment("tiny")])) == 1

    def test_a_model_that_a_kept_run_is_linked_to_stays_with_its_run(self, home: Home, tracker: Tracker) -> None:
        teacher = model(home, "teacher", "a")
        student = model(home, "student", "a", teacher)
        self.recorded(home, tracker, "a", [teacher, student])
        kept = self.recorded(home, tracker, "b", [teacher], NEW)
        cleaned = clean(home, AGE)
        assert self.runs(tracker) == {"a", "teacher", "b"}  # not the student
        assert [p.why for p in cleaned.kept if (p.kind, p.name) == ("run", "a")] == ["MLflow keeps a model with it that others use"]
        assert kept.teacher
        outputs = tracker.client.get_run(str(kept.teacher.mlflow_run_id)).outputs
        assert outputs
        assert (tracker.resolve_model(f"models:/{outputs.model_outputs[0].model_id}") / "config.json").is_file()

    @pytest.mark.parametrize("alias", ["champion", pytest.param("challenger", marks=pytest.mark.slow), None])
    @pytest.mark.parametrize("source", ["artifacts", "models:/", pytest.param("runs:/", marks=pytest.mark.slow)])
    def test_a_promoted_model_keeps_its_run(
        self, home: Home, tracker: Tracker, alias: str | None, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        teacher = model(home, "teacher", "a")
        record = self.recorded(home, tracker, "a", [teacher, model(home, "student", "a", teacher)])
        self.recorded(home, tracker, "b", [model(home, "other", "b", seed=5)])
        run_id = str(record.stages[0].mlflow_run_id)
        run = tracker.client.get_run(run_id)
        assert run.outputs
        model_id = run.outputs.model_outputs[0].model_id
        place = {
            "artifacts": (tracker.client.get_logged_model(model_id).artifact_location, run_id),
            "models:/": (f"models:/{model_id}", None),
            "runs:/": (f"runs:/{run_id}/student", None),
        }[source]
        tracker.client.create_registered_model("tiny")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.address)  # MLflow looks `models:/` up there, not where the client does
        version = tracker.client.create_model_version("tiny", place[0], run_id=place[1])
        if alias:
            tracker.client.set_registered_model_alias("tiny", alias, version.version)
        before = results(home)
        cleaned = clean(home, AGE)
        assert {"run/b", "teacher/other", "mlflow/b/other"} <= {f"{p.kind}/{p.name.split('-')[0]}" for p in cleaned.freed}
        if alias:
            assert [p.why for p in cleaned.kept if p.kind == "run"] == [f"promoted: tiny@{alias}"]
            assert {path for path in before if "other" not in path.name} == results(home)
            assert {"a", "teacher", "student"} <= self.runs(tracker)
            cleaned = clean(home, AGE, keep_promoted=False)
        assert results(home) == set()
        assert self.runs(tracker) == {"a", "student"}  # what a registered version is made of is never deleted
        assert tracker.resolve_model("models:/tiny/1")

    def test_a_record_elsewhere_is_told(self, home: Home, tracker: Tracker) -> None:
        self.recorded(home, tracker, "b", [model(home, "teacher", "b", moment=NEW)], NEW)
        ran(home, "a", [], mlflow_run_id="f" * 32, mlflow_uri="http://elsewhere:5000")
        assert clean(home, AGE).notes == ("the record of a in MLflow at http://elsewhere:5000 stays: that is not the present address",)
        assert self.runs(tracker) == {"b", "teacher"}

    def test_versions_without_an_alias_go_with_their_run_and_those_with_one_stay(self, home: Home, tracker: Tracker) -> None:
        for name, seed in (("a", 0), ("b", 1), ("c", 2)):
            record = self.recorded(home, tracker, name, [model(home, f"student{name}", name, seed=seed)])
            assert record.teacher
            register(tracker, home, record, record.teacher)  # each takes the alias `challenger` from the one before
        tracker.client.set_registered_model_alias("tiny", "champion", "1")
        clean(home, AGE)
        assert [entry.version for entry in list_versions(tracker, "tiny")] == ["3", "1"]
        assert self.runs(tracker) == {"a", "studenta", "c", "studentc"}
        assert tracker.resolve_model("models:/tiny@champion")
