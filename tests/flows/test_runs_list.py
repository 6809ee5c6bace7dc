"""The list of runs: columns, lines below, narrow terminals."""

from __future__ import annotations

from flows.cli.show.runs import run_row, runs_text
from tasks.records.run import Retention
from tests.factories import model_record, run_record

STUDENT = model_record("one", metrics={"bits_per_byte": 2.0}, retention=Retention(parent=0.9, root=0.8), flops=2e9)
TEACHER = model_record("teacher", flops=5e9, reused=True)
ROWS = [
    run_record("tiny-a1b-20260101-0000", TEACHER, STUDENT, planned=("one",), seconds=75.0, overrides=("seed=1",), note="a first look"),
    run_record("tiny-proof-c2d-20260101-0000", TEACHER, planned=("one",), status="failed", proof=True),
]


def test_a_line_tells_kind_quality_retention_and_cost_and_below_it_what_differs() -> None:
    head, first, below, second = runs_text([run_row(record) for record in ROWS], 120).splitlines()
    assert head.split() == ["run", "kind", "status", "quality", "of", "root", "time", "FLOPs", "started"]
    assert " ".join(first.split()) == "tiny-a1b-20260101-0000 ladder done 2.000 b/B 80.0 % 75 s 2 G 01-01 00:00"
    assert below == "    seed=1; note: a first look"
    assert second.split()[:5] == ["tiny-proof-c2d-20260101-0000", "proof", "failed,", "0/1", "-"]


def test_a_narrow_terminal_shows_fewer_columns_and_breaks_no_word() -> None:
    lines = runs_text([run_row(record) for record in ROWS], 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "started" not in lines[0]
    assert lines[1].startswith("tiny-a1b-20260101-0000 ")


def test_the_ladder_is_a_column_where_a_name_does_not_tell_it() -> None:
    named = run_row(ROWS[0].model_copy(update={"run": "trial"}))
    assert runs_text([named], 120).splitlines()[1].split()[:3] == ["trial", "tiny", "ladder"]


def test_the_row_of_json() -> None:
    row = run_row(ROWS[0])
    assert (row["kind"], row["metric"], row["quality"], row["retention"], row["flops"]) == ("ladder", "bits_per_byte", 2.0, 0.8, 2e9)
    assert (row["differs"], row["note"], row["by"]) == (["seed=1"], "a first look", None)
