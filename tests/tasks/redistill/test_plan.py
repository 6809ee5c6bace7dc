"""The run after a drop: which settings change, which models stay, and what speaks against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import Loaded, load, load_whole
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from tasks.records.monitoring import WindowReport
from tasks.records.run import StageRecord
from tasks.redistill.plan import REFRESH, ChampionRun, overrides_of
from tasks.redistill.prepare import DISTIL, Drop, PutOff, drop_windows, make_ready, require_wanted
from tasks.registry.versions import Version
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
from tests.factories import inputs_of, ladder_of_file, model_record, run_record, write_good_and_bad
from tests.tasks.data.builders import SHAPES, TRAINING

KIND = SHAPES["sequence-classification"]
TRAINED = {"source": "train", "shape": KIND, "training": TRAINING}


def ladder(teacher: dict[str, Any] = TRAINED, **settings: Any) -> Ladder:
    return ladder_of_file(teacher=teacher, stages=[{"name": "small", "student": {"shape": KIND}, "training": {"steps": 7}}], **settings)


def stored_teacher(home: Home) -> StageRecord:
    identity = {"kind": "teacher"}
    record = model_record("teacher", fingerprint=fingerprint(identity))

    def write(folder: Path) -> None:
        (folder / "record.json").write_text(record.model_dump_json())

    found = Store(home).publish("teacher", "teacher", identity, record.fingerprint, {"run": "r", "ladder": "tiny"}, write)
    return record.model_copy(update={"folder": str(found.folder)})


def origin_in(folder: Path, made: Ladder | None = None, teacher: StageRecord | None = None) -> ChampionRun:
    """The run of a champion whose ladder has these settings; its teacher is in the store of the home `home`."""
    made = made or ladder()
    if not (folder / "rows.csv").exists():
        write_good_and_bad(folder)
    data = inputs_of(made, folder).data if made.teacher.source != "checkpoint" else inputs_of(ladder(), folder).data
    record = run_record("tiny-1", teacher or stored_teacher(Home(folder / "home")), model_record("small"), data=data)
    return ChampionRun(record, made, Loaded(made, folder), inline=True)


def changed(origin: ChampionRun, overrides: tuple[str, ...]) -> Ladder:
    return load_whole(origin.settings, overrides).ladder


def test_the_windows_join_and_the_teacher_stays_as_the_store_has_it(tmp_path: Path) -> None:
    origin = origin_in(tmp_path)
    overrides, kept = overrides_of(Home(tmp_path / "home"), origin, DISTIL, tmp_path / "transfer.jsonl", 2.5)
    made = changed(origin, overrides)
    assert kept == ("teacher",)
    assert [(rows.paths, rows.weight) for rows in made.data.transfer] == [((str(tmp_path / "transfer.jsonl"),), 2.5)]
    assert (made.teacher.source, made.teacher.training) == ("checkpoint", None)
    assert made.teacher.path == origin.teacher.folder
    assert made.stages == origin.settings.stages
    later = replace(origin, settings=made, now=Loaded(made, tmp_path))
    again = changed(later, overrides_of(Home(tmp_path / "home"), later, DISTIL, tmp_path / "more.jsonl", 1.0)[0])
    assert [rows.paths[0] for rows in again.data.transfer] == [str(tmp_path / "transfer.jsonl"), str(tmp_path / "more.jsonl")]


def test_a_teacher_to_be_refreshed_is_trained_on_from_where_it_stands(tmp_path: Path) -> None:
    origin = origin_in(tmp_path)
    overrides, kept = overrides_of(Home(tmp_path / "home"), origin, REFRESH, tmp_path / "transfer.jsonl", 1.0)
    made = changed(origin, overrides)
    assert kept == ()
    assert made.teacher.source == "checkpoint"
    assert made.teacher.path == origin.teacher.folder
    assert origin.settings.teacher.training
    assert made.teacher.training == origin.settings.teacher.training
    other = ladder(redistill={"teacher_training": {"steps": 99}})
    origin = replace(origin, settings=other, now=Loaded(other, tmp_path))
    made = changed(origin, overrides_of(Home(tmp_path / "home"), origin, REFRESH, tmp_path / "t.jsonl", 1.0)[0])
    assert made.teacher.training
    assert made.teacher.training.steps == 99


def test_a_teacher_that_is_gone_or_a_file_of_answers_is_refused(tmp_path: Path) -> None:
    origin = origin_in(tmp_path, teacher=model_record("teacher", fingerprint="f" * 64, folder="/gone"))
    with pytest.raises(UserError, match=r"teacher: got 'ffffffffffff'; allowed: a teacher that is in the store or at its path.*/gone"):
        overrides_of(Home(tmp_path / "home"), origin, DISTIL, tmp_path / "t.jsonl", 1.0)
    moved = ladder({"source": "checkpoint", "path": "./absent"}, tokenizer={"kind": "teacher"})
    with pytest.raises(UserError, match=r"allowed: a teacher that is in the store or at its path"):
        overrides_of(Home(tmp_path / "home"), replace(origin, settings=moved), DISTIL, tmp_path / "t.jsonl", 1.0)
    answers = ladder({"source": "answers", "path": "a.parquet", "classes": ["bad", "good"], "parameters": 5})
    with pytest.raises(UserError, match=r"teacher\.source: got 'answers'; allowed: a teacher that can be asked"):
        overrides_of(Home(tmp_path / "home"), replace(origin, settings=answers), DISTIL, tmp_path / "t.jsonl", 1.0)


def test_a_tokenizer_that_was_trained_here_is_the_teachers_from_then_on(tmp_path: Path) -> None:
    made = ladder(tokenizer={"kind": "bpe", "vocabulary": 300})
    origin = origin_in(tmp_path)
    overrides, _ = overrides_of(Home(tmp_path / "home"), replace(origin, settings=made), DISTIL, tmp_path / "t.jsonl", 1.0)
    assert load_whole(made, overrides).ladder.tokenizer.kind == "teacher"


@pytest.mark.parametrize(
    ("policy", "diagnosis", "message"),
    [
        ("off", DISTIL, r"redistill\.policy is off: nothing begins by itself"),
        ("auto", "watch", "the diagnosis is 'watch': no training mends it"),
        ("ask", "too few examples", "no training mends it"),
    ],
)
def test_what_is_not_wanted_is_refused_with_the_reason(policy: str, diagnosis: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_wanted(Drop("tiny", "c", diagnosis), ladder(redistill={"policy": policy}), [])


def test_a_person_is_bound_by_neither_policy_nor_number(tmp_path: Path) -> None:
    require_wanted(Drop("tiny", by="a person"), ladder(), [])
    require_wanted(Drop("tiny"), ladder(redistill={"policy": "auto"}), [])


def test_more_than_so_many_a_week_are_put_off(tmp_path: Path) -> None:
    from tasks.redistill.decisions import add

    made = [
        add(Home(tmp_path), name="tiny", cause=f"c{n}", outcome="promoted", reason="r", diagnosis=DISTIL, by="monitor") for n in range(2)
    ]
    settings = ladder(redistill={"policy": "auto", "per_week": 2})
    with pytest.raises(PutOff, match=r"2 began in the last seven days; redistill\.per_week allows 2"):
        require_wanted(Drop("tiny", "c"), settings, made)
    require_wanted(Drop("tiny", "c"), settings, made[:1])


def ready(folder: Path, rows: list[dict[str, Any]], diagnosis: str = DISTIL, **settings: Any) -> Any:
    path = folder / "windows" / "w.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    origin, home = origin_in(folder, ladder(**settings)), Home(folder / "home")
    champion = Version("tiny", "1", ("champion",), "tiny-1", "small", "f", "w", folder, "sequence-classification", {})
    drop = Drop("tiny", "c", diagnosis, windows=(str(path.parent),))
    return make_ready(drop, home, origin, champion, "c", folder / "out", None)


def test_windows_without_rows_labels_or_anything_to_learn_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--windows: got '1 rows, of which 1 could not be used'; allowed: rows with content\. Files: w\.jsonl"
    ):
        ready(tmp_path, [{"input": " "}, {"input": None}])
    with pytest.raises(UserError, match=r"got 'no labelled row'; allowed: labels to refresh the teacher by"):
        ready(tmp_path, [{"input": f"text {n}"} for n in range(20)], REFRESH)
    with pytest.raises(UserError, match=r"got '1 rows, all held out'; allowed: rows to learn from"):
        ready(tmp_path, [{"input": "a", "label": "good"}], redistill={"holdout": 0.9999})
    with pytest.raises(UserError, match=r"got '0 rows, of which 0 could not be used'"):
        ready(tmp_path, [])


def test_all_that_a_run_needs(tmp_path: Path) -> None:
    found = ready(tmp_path, [{"input": f"a good day {n}", "label": "good"} for n in range(40)], redistill={"mix": 0.5})
    assert found.fields["champion"] == "tiny/1"
    own = found.origin.own_rows
    assert found.data.counts.weight == pytest.approx(own / found.data.counts.transfer, rel=5e-3)
    assert load_whole(found.origin.settings, found.overrides).ladder.data.transfer[0].weight == found.data.counts.weight


def test_off_is_a_word_and_a_budget_is_a_time(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(ladder(redistill={"policy": "auto"})).replace("  policy: auto\n  per_week", "  policy: off\n  per_week"))
    assert load(str(path)).ladder.redistill.policy == "off"
    with pytest.raises(UserError, match=r"redistill\.budget: got 'soon'; allowed: a whole number with s, m, h or d"):
        load(str(path), ["redistill.budget=soon"])


def test_the_windows_of_a_drop_begin_with_the_one_that_the_cause_names() -> None:
    def report(number: int, version: str = "tiny/1", cause: str | None = None, **more: Any) -> WindowReport:
        fields = {"weights_sha256": "w", "workload": "sequence-classification", "metric": "accuracy", "content": f"{number}", "drop": 0.02}
        moment = "2026-01-01T00:00:00+00:00"
        where = {"window": f"w{number}", "path": f"/w{number}.jsonl", "number": number, "looked": moment}
        return WindowReport(name="tiny", version=version, cause=cause, **where, **fields, **more)

    cause = "tiny/1:w3"
    reports = [
        report(1),
        report(2),
        report(3),
        report(4, unusable=True),
        report(5, cause=cause),
        report(6, "tiny/2"),
        report(7, cause=cause),
    ]
    assert drop_windows(reports, cause) == [Path("/w3.jsonl"), Path("/w5.jsonl"), Path("/w7.jsonl")]
    assert drop_windows(reports[3:], cause) == [Path("/w5.jsonl"), Path("/w7.jsonl")], "the first is no longer in the history"
    assert drop_windows(reports, "tiny/9:w1") == []
