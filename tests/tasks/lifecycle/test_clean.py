"""Results that kept runs reach stay, old ones go, running runs are undisturbed."""

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
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import LadderError, UserError
from conf.home import Home
from tasks.lifecycle.clean import Cleaned, clean, parse_age
from tasks.records.choice.generation import GenerationRecord
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_lock import RunLock
from tasks.runtime.runs.run_registry import load_run
from tasks.store.fingerprint import fingerprint
from tasks.store.store import SHOWN, Store, verify
from tests.tasks.homes import AGE, DAY, NEW, OLD, dataset, model, names, publish, ran, results, total

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


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

    def test_generated_rows_that_a_young_run_reuses_are_not_paid_again(self, home: Home) -> None:
        teacher, of_round = model(home, "teacher", "a"), model(home, "of-round", "a", model(home, "root", "a"))
        kinds = ("answers", "generated", "failures")
        identities = {(kind, name): {"kind": kind, "name": name} for kind in kinds for name in ("used", "unused")}
        for (kind, name), identity in identities.items():
            publish(home, kind, name, identity, "a")
        used = {kind: fingerprint(identities[kind, "used"]) for kind in kinds}
        made = GenerationRecord(
            teacher="teacher",
            fingerprint=used["generated"],
            answers_fingerprint=used["answers"],
            folder="",
            prompts=1,
            answers=1,
            kept=1,
            student=of_round.fingerprint,
            judged=(used["failures"],),
        )
        ran(home, "a", [teacher])
        ran(home, "b", [teacher], moment=NEW, generation=(made,))
        assert names(clean(home, AGE)) == {"answers/unused", "failures/unused", "generated/unused", "run/a"}

    def test_a_teacher_that_no_record_of_a_kept_run_holds(self, home: Home) -> None:
        root = model(home, "root", "a")
        parent = model(home, "parent", "a", root)
        student = model(home, "student", "a", parent)
        ran(home, "a", [root, parent])
        ran(home, "b", [student], moment=NEW)  # one stage alone
        assert names(clean(home, AGE)) == {"run/a"}

    def test_leavings(self, home: Home) -> None:
        key = "f" * SHOWN
        for moment in (OLD, NEW):
            (home.store / "set-aside" / f"damaged-{key}-{int(moment * 1e9)}").mkdir(parents=True)
        for name in (f"{key}-123", f"{'e' * SHOWN}-124"):
            (home.store / "writing" / name).mkdir(parents=True)
        with Store(home).lock("e" * SHOWN):
            freed = [(piece.kind, piece.name) for piece in clean(home, AGE).freed]
        assert freed == [("set-aside", f"damaged-{key}-{int(OLD * 1e9)}"), ("writing", f"{key}-123")]

    def test_checkpoints(self, home: Home) -> None:
        ran(home, "young", [], moment=NEW)
        ran(home, "old", [])
        for number, (owner, moment) in enumerate([("young", OLD), ("old", OLD), ("gone", OLD), ("gone", NEW), ("gone", OLD)]):
            folder = home.store / "checkpoints" / (str(number) * SHOWN)
            (folder / "step-00000005").mkdir(parents=True)
            (folder / "run").write_text(owner)
            for path in (folder / "step-00000005", folder / "run", folder):
                os.utime(path, (moment, moment))
        with Store(home).lock("4" * SHOWN):
            clean(home, AGE)
        assert sorted(path.name[0] for path in (home.store / "checkpoints").iterdir()) == ["0", "3", "4"]

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
        with pytest.raises(LadderError, match="cannot be read, so the results that it needs are unknown"):
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
        for kind, key in needed:
            folder = next((home.store / kind).glob(f"*-{key[:SHOWN]}"))
            assert verify(folder, key)[0] is None
        if not alive:  # all that is old and out of reach is gone
            reached = {next((home.store / kind).glob(f"*-{key[:SHOWN]}")) for kind, key in needed}
            kept_runs = {path.name for path in home.runs.glob("*")}
            others = {path for path in everything if path.exists() and (maker(path) in kept_runs or path.stat().st_mtime > OLD + 1)}
            assert results(home) == reached | others
    shutil.rmtree(home.root)


def maker(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["run"]


REUSE = """
import sys, time
from conf.home import home
from tasks.store.fingerprint import fingerprint
from tasks.runtime.runs.run_lock import RunLock
from tasks.store.store import Store

store, identity = Store(home()), {"kind": "stage", "seed": 1}
key, lost = fingerprint(identity), 0
lock = RunLock(home(), "reuser")
lock.take()
print("ready", flush=True)
until = time.time() + 4
while time.time() < until:
    with store.lock(key):
        found = store.find("stage", key)
        if found is None:
            lost += 1
            write = lambda folder: (folder / "weights").write_bytes(b"x" * 1000)
            found = store.publish("stage", "s", identity, key, {"run": "reuser", "ladder": "l"}, write)
    assert (found.folder / "weights").read_bytes() == b"x" * 1000  # used after the lock was let go, as a teacher's folder is
print(lost)
"""


@pytest.mark.slow
@pytest.mark.processes
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
