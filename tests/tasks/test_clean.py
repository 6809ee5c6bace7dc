"""What a kept run reaches stays, all else that is old goes, and whoever computes or reuses something meanwhile never notices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import LadderError, UserError
from conf.home import Home
from tasks import tracking
from tasks.clean import Cleaned, clean, parse_age
from tasks.fingerprint import fingerprint
from tasks.records import DataRecord, RunRecord, StageRecord
from tasks.runs import RunLock, load_run, save
from tasks.store import SHOWN, Found, Store, verify

ROOT = Path(__file__).parents[2]
DAY = 86400.0
AGE = 30 * DAY
OLD = time.time() - 40 * DAY
NEW = time.time() - 5 * DAY


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def publish(home: Home, kind: str, name: str, identity: dict[str, Any], run: str, moment: float = OLD, record: str = "{}") -> Found:
    def write(folder: Path) -> None:
        (folder / "record.json").write_text(record)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode() * 100)

    found = Store(home).publish(kind, name, identity, fingerprint(identity), {"run": run, "ladder": "tiny"}, write)
    os.utime(found.folder, (moment, moment))
    return found


def model(home: Home, name: str, run: str, teacher: StageRecord | None = None, moment: float = OLD, seed: int = 0) -> StageRecord:
    """A model in the store, and its evaluation."""
    kind = "stage" if teacher else "teacher"
    identity = {"kind": kind, "name": name, "seed": seed, "teachers": [teacher.fingerprint] if teacher else []}
    mark = fingerprint(identity)
    record = StageRecord(
        name=name,
        fingerprint=mark,
        identity={},
        folder="",
        weights_sha256=fingerprint({"weights": mark}),
        parameters=1000,
        non_embedding=900,
        flops_per_token=1.0,
        steps=5,
        tokens=1,
        flops=1.0,
        seconds=1.0,
        reused=False,
        teachers=(teacher.name,) if teacher else (),
        teacher_fingerprints=(teacher.fingerprint,) if teacher else (),
    )
    publish(home, kind, name, identity, run, moment, record.model_dump_json())
    publish(home, "evaluation", name, {"kind": "evaluation", "weights": record.weights_sha256}, run, moment)
    publish(home, "decision", name, {"kind": "decision", "weights": record.weights_sha256}, run, moment)
    return record


def ran(home: Home, run: str, models: list[StageRecord], data: DataRecord | None = None, moment: float = OLD, **more: Any) -> RunRecord:
    when = datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
    ended = {"status": "done", "finished": when} | more
    record = RunRecord(
        run=run,
        ladder="tiny",
        settings_hash="h",
        source="tiny",
        started=when,
        pid=1,
        folder=str(home.runs / run),
        data=data,
        teacher=models[0] if models else None,
        stages=tuple(models[1:]),
        **ended,
    )
    save(home, record)
    os.utime(home.runs / run / "record.json", (moment, moment))
    return record


def dataset(home: Home, run: str, seed: int = 0, moment: float = OLD) -> DataRecord:
    identity = {"kind": "data", "seed": seed}
    found = publish(home, "data", "digits", identity, run, moment)
    return DataRecord(fingerprint=fingerprint(identity), folder=str(found.folder), content_hash="c", reused=False, seconds=1.0)


def names(cleaned: Cleaned) -> set[str]:
    return {f"{piece.kind}/{piece.name.rpartition('-')[0] or piece.name}" for piece in cleaned.freed}


def results(home: Home) -> set[Path]:
    return {path for kind in ("data", "teacher", "stage", "evaluation", "decision") for path in (home.store / kind).glob("*")}


def total(home: Home) -> int:
    return sum(path.stat().st_size for part in (home.store, home.runs) for path in part.rglob("*") if path.is_file())


class TestAge:
    @pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY), ("90m", 5400), ("0d", 0)])
    def test_it_is_read(self, text: str, seconds: float) -> None:
        assert parse_age(text) == seconds

    @pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30 days", "1y", "1e3d", "٣d", "1d2h", "9999999d", "nand"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(UserError, match=r"--older-than: got .*; allowed: a whole number with m, h, d or w") as caught:
            parse_age(text)
        assert caught.value.exit_code == 2


class TestWhatGoes:
    def test_an_empty_home(self, home: Home) -> None:
        assert clean(home, 0) == Cleaned(dry_run=False, older_than_seconds=0)
        assert not home.root.exists()

    def test_an_old_run_goes_whole_and_a_young_one_stays_whole(self, home: Home) -> None:
        old, young = model(home, "old", "a"), model(home, "young", "b", moment=NEW)
        ran(home, "a", [old, model(home, "its-student", "a", old)], dataset(home, "a"))
        ran(home, "b", [young], dataset(home, "b", 1, NEW), NEW)
        kept, before = {path for path in results(home) if path.stat().st_mtime > OLD + 1}, total(home)

        tried = clean(home, AGE, dry_run=True)
        assert total(home) == before
        cleaned = clean(home, AGE)
        assert (cleaned.freed, cleaned.kept, cleaned.freed_bytes) == (tried.freed, tried.kept, tried.freed_bytes)
        assert cleaned.freed_bytes == before - total(home) > 0
        assert results(home) == kept
        assert not (home.runs / "a").exists()
        assert not (home.locks / "run-a.lock").exists()
        assert load_run(home).run == "b"
        assert list((home.store / "writing").iterdir()) == []
        assert clean(home, AGE).freed == ()

    def test_what_an_old_run_made_and_a_young_one_reuses_stays(self, home: Home) -> None:
        teacher = model(home, "teacher", "a")
        student, other = model(home, "student", "a", teacher), model(home, "other", "a", teacher)
        data = dataset(home, "a")
        ran(home, "a", [teacher, student, other], data)
        ran(home, "b", [teacher, student], data, NEW)
        assert names(clean(home, AGE)) == {"stage/other", "evaluation/other", "decision/other", "run/a"}

    def test_a_teacher_that_no_record_of_a_kept_run_holds(self, home: Home) -> None:
        root = model(home, "root", "a")
        parent = model(home, "parent", "a", root)
        student = model(home, "student", "a", parent)
        ran(home, "a", [root, parent])
        ran(home, "b", [student], moment=NEW)  # one stage alone
        assert names(clean(home, AGE)) == {"run/a"}

    def test_leavings(self, home: Home) -> None:
        mark = "f" * SHOWN
        for moment in (OLD, NEW):
            (home.store / "set-aside" / f"damaged-{mark}-{int(moment * 1e9)}").mkdir(parents=True)
        for name in (f"{mark}-123", f"{'e' * SHOWN}-124"):
            (home.store / "writing" / name).mkdir(parents=True)
        with Store(home).lock("e" * SHOWN):
            freed = [(piece.kind, piece.name) for piece in clean(home, AGE).freed]
        assert freed == [("set-aside", f"damaged-{mark}-{int(OLD * 1e9)}"), ("writing", f"{mark}-123")]

    def test_checkpoints(self, home: Home) -> None:
        ran(home, "young", [], moment=NEW)
        ran(home, "old", [])
        for number, (owner, moment) in enumerate([("young", OLD), ("old", OLD), ("gone", OLD), ("gone", NEW), ("gone", OLD)]):
            folder = home.store / "work" / (str(number) * SHOWN)
            (folder / "step-00000005").mkdir(parents=True)
            (folder / "run").write_text(owner)
            for path in (folder / "step-00000005", folder / "run", folder):
                os.utime(path, (moment, moment))
        with Store(home).lock("4" * SHOWN):
            clean(home, AGE)
        assert sorted(path.name[0] for path in (home.store / "work").iterdir()) == ["0", "3", "4"]

    def test_a_fetched_model(self, home: Home) -> None:
        for name, moment in (("old", OLD), ("new", NEW)):
            (home.mlflow / "downloads" / name).mkdir(parents=True)
            os.utime(home.mlflow / "downloads" / name, (moment, moment))
        assert names(clean(home, AGE)) == {"download/old"}

    def test_a_record_of_another_version_stops_it(self, home: Home) -> None:
        ran(home, "a", [model(home, "teacher", "a")])
        path = home.runs / "a" / "record.json"
        path.write_text(path.read_text().replace('"run"', '"of_the_future": 1, "run"', 1))
        before = results(home)
        with pytest.raises(LadderError, match="cannot be read, so what it needs is not known"):
            clean(home, 0)
        assert results(home) == before

    def test_one_at_a_time(self, home: Home) -> None:
        home.locks.mkdir(parents=True)
        with FileLock(home.locks / "clean.lock"), pytest.raises(LadderError, match="Another `ladder clean` is under way"):
            clean(home, 0)


class TestRunning:
    def test_what_was_touched_since_it_began_may_be_in_use(self, home: Home) -> None:
        ran(home, "running", [], moment=OLD, status="running", finished=None)
        lock = RunLock(home, "running")
        assert lock.take()
        unused, used = model(home, "unused", "gone", moment=OLD - DAY), model(home, "used", "gone", moment=OLD + DAY)
        assert names(clean(home, AGE)) == {f"{kind}/unused" for kind in ("teacher", "evaluation", "decision")}
        assert Store(home).peek("teacher", used.fingerprint)
        assert not Store(home).peek("teacher", unused.fingerprint)
        lock.release()
        assert {"run/running", "teacher/used"} <= names(clean(home, AGE))

    def test_a_reuse_makes_it_young(self, home: Home) -> None:
        teacher, other = model(home, "teacher", "gone"), model(home, "other", "gone")
        with Store(home).lock(teacher.fingerprint):
            assert Store(home).find("teacher", teacher.fingerprint)
        assert {"teacher/other"} <= names(clean(home, AGE))
        assert Store(home).peek("teacher", teacher.fingerprint)
        assert not Store(home).peek("teacher", other.fingerprint)

    def test_a_result_whose_fingerprint_is_locked_stays(self, home: Home) -> None:
        teacher = model(home, "teacher", "gone")
        with Store(home).lock(teacher.fingerprint):
            assert "teacher/teacher" not in names(clean(home, 0))
        assert "teacher/teacher" in names(clean(home, 0))

    def test_a_run_whose_process_still_has_to_tell_how_it_ended(self, home: Home) -> None:
        ran(home, "ended", [model(home, "teacher", "ended")], prefect_run_id="abc")
        home.locks.mkdir(exist_ok=True)
        with FileLock(home.locks / "flow-abc.lock"):
            assert clean(home, 0).freed == ()
        assert {"run/ended", "teacher/teacher"} <= names(clean(home, 0))

    def test_a_run_about_to_begin(self, home: Home) -> None:
        teacher = model(home, "teacher", "gone", moment=time.time() - 5)
        lock = RunLock(home, "not-yet-recorded")
        assert lock.take()
        clean(home, 0)
        assert Store(home).peek("teacher", teacher.fingerprint)
        lock.release()
        clean(home, 0)
        assert not Store(home).peek("teacher", teacher.fingerprint)


@dataclass
class Case:
    """A home in miniature: runs by age, each with a chain of models from a small pool, and when each result was last used."""

    runs: list[tuple[str, list[int]]] = field(default_factory=list)  # old, new, alive; seeds of the chain, root first
    used: list[bool] = field(default_factory=list)  # by seed: whether the pool's results were used lately


chains = st.lists(st.integers(0, 3), max_size=3)
cases = st.builds(
    Case,
    st.lists(st.tuples(st.sampled_from(["old", "new", "alive"]), chains), max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)


@contextmanager
def built(case: Case, home: Home) -> Iterator[dict[str, list[StageRecord]]]:
    """The models of each run; a chain that another run has made already is reused."""
    locks, made = [], {}
    for index, (state, seeds) in enumerate(case.runs):
        run, models = f"run-{index}", []
        for seed in seeds:
            teacher = models[-1] if models else None
            models.append(model(home, f"m{seed}", run, teacher, NEW if case.used[seed] else OLD, seed))
        data = dataset(home, run, len(seeds))
        alive = {"status": "running", "finished": None} if state == "alive" else {}
        ran(home, run, models, data, NEW if state == "new" else OLD, **alive)
        made[run] = models
        if state == "alive":
            locks.append(RunLock(home, run))
            assert locks[-1].take()
    try:
        yield made
    finally:
        for lock in locks:
            lock.release()


@given(cases)
@settings(max_examples=40, deadline=None)
def test_any_home(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    home = Home(tmp_path_factory.mktemp("any") / "home")
    home.root.mkdir()
    with built(case, home) as made:
        before, everything = total(home), results(home)
        alive = any(state == "alive" for state, _ in case.runs)
        cleaned = clean(home, AGE)
        assert cleaned.freed_bytes == before - total(home)

        needed = set()
        for index, (state, _) in enumerate(case.runs):
            run = f"run-{index}"
            if state == "old" and not alive:
                assert not (home.runs / run).exists()
                continue
            record = load_run(home, run)  # what runs since the age's limit has everything younger than itself kept
            assert record.data
            needed |= {("data", record.data.fingerprint)}
            for used in made[run]:
                needed |= {("stage" if used.teachers else "teacher", used.fingerprint)}
                for kind in ("evaluation", "decision"):
                    needed |= {(kind, fingerprint({"kind": kind, "weights": used.weights_sha256}))}
        for kind, mark in needed:
            folder = next((home.store / kind).glob(f"*-{mark[:SHOWN]}"))
            assert verify(folder, mark)[0] is None
        if not alive:  # all that is old and out of reach is gone
            reached = {next((home.store / kind).glob(f"*-{mark[:SHOWN]}")) for kind, mark in needed}
            kept_runs = {path.name for path in home.runs.glob("*")}
            others = {path for path in everything if path.exists() and (maker(path) in kept_runs or path.stat().st_mtime > OLD + 1)}
            assert results(home) == reached | others
    shutil.rmtree(home.root)


def maker(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["run"]


REUSE = """
import sys, time
from conf.home import home
from tasks.fingerprint import fingerprint
from tasks.runs import RunLock
from tasks.store import Store

store, identity = Store(home()), {"kind": "stage", "seed": 1}
mark, lost = fingerprint(identity), 0
lock = RunLock(home(), "reuser")
lock.take()
print("ready", flush=True)
until = time.time() + 4
while time.time() < until:
    with store.lock(mark):
        found = store.find("stage", mark)
        if found is None:
            lost += 1
            write = lambda folder: (folder / "weights").write_bytes(b"x" * 1000)
            found = store.publish("stage", "s", identity, mark, {"run": "reuser", "ladder": "l"}, write)
    assert (found.folder / "weights").read_bytes() == b"x" * 1000  # used after the lock was let go, as a teacher's folder is
print(lost)
"""


def test_a_reuse_in_another_process_and_cleaning_never_meet(home: Home) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LADDER_HOME": str(home.root)}
    process = subprocess.Popen([sys.executable, "-c", REUSE], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    rounds = 0
    while process.poll() is None:
        clean(home, 0)
        rounds += 1
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert int(out) == 1  # computed once, and never taken from it
    print(f"{rounds} cleanings beside it")
    assert rounds > 10


@pytest.fixture(scope="module")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database; making its tables takes seconds."""
    place = Home(tmp_path_factory.mktemp("record"))
    tracking.connect(place)
    return place.mlflow / "mlflow.db"


class TestMlflow:
    @pytest.fixture
    def tracker(self, home: Home, empty_record: Path, monkeypatch: pytest.MonkeyPatch) -> tracking.Tracker:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        home.mlflow.mkdir(parents=True)
        shutil.copy(empty_record, home.mlflow / "mlflow.db")
        return tracking.connect(home)

    def recorded(self, home: Home, tracker: tracking.Tracker, run: str, models: list[StageRecord], moment: float = OLD) -> RunRecord:
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

    def runs(self, tracker: tracking.Tracker) -> set[str]:
        from mlflow.entities import ViewType

        found = tracker.client.search_runs([tracker.experiment("tiny")], "", ViewType.ALL)
        return {f"{run.info.run_name}" for run in found}

    def test_runs_and_artifacts_of_an_old_run_go_for_good(self, home: Home, tracker: tracking.Tracker) -> None:
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

    def test_a_model_that_a_kept_run_is_linked_to_stays_with_its_run(self, home: Home, tracker: tracking.Tracker) -> None:
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

    @pytest.mark.parametrize("alias", ["champion", "challenger", None])
    @pytest.mark.parametrize("source", ["artifacts", "models:/", "runs:/"])
    def test_a_promoted_model_keeps_its_run(
        self, home: Home, tracker: tracking.Tracker, alias: str | None, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        teacher = model(home, "teacher", "a")
        record = self.recorded(home, tracker, "a", [teacher, model(home, "student", "a", teacher)])
        self.recorded(home, tracker, "b", [model(home, "other", "b", seed=5)])
        run_id = str(record.stages[0].mlflow_run_id)
        run = tracker.client.get_run(run_id)
        assert run.outputs
        place = {
            "artifacts": (f"{run.info.artifact_uri}/student", run_id),
            "models:/": (f"models:/{run.outputs.model_outputs[0].model_id}", None),
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

    def test_a_record_elsewhere_is_told(self, home: Home, tracker: tracking.Tracker) -> None:
        self.recorded(home, tracker, "b", [model(home, "teacher", "b", moment=NEW)], NEW)
        ran(home, "a", [], mlflow_run_id="f" * 32, mlflow_uri="http://elsewhere:5000")
        assert clean(home, AGE).notes == ("the record of a in MLflow at http://elsewhere:5000 stays: that is not the present address",)
        assert self.runs(tracker) == {"b", "teacher"}
