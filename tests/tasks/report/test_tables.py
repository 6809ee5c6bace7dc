from typing import Any

import pytest
from rich.console import Console

from tasks.records import format as fmt
from tasks.records.run import Retention, RunRecord, StageRecord
from tasks.report import tables
from tests.factories import model_record, run_record


def stage(name: str, parameters: int, teachers: tuple[str, ...] = (), **more) -> StageRecord:
    fields: dict[str, Any] = {
        "metrics": {"nll": 1.4, "bits_per_byte": 2.0224, "accuracy": 0.55},
        "steps": 400,
        "tokens": 2_457_600,
        "seconds": 182.4,
    }
    return model_record(name, parameters=parameters, teachers=teachers, **fields | more)


def run(teacher: StageRecord | None, *stages: StageRecord, **more: Any) -> RunRecord:
    plain: dict[str, Any] = {"planned": ("300k", "100k", "30k"), "workload": "causal-lm", "status": "running"}
    return run_record(teacher=teacher, stages=stages, **plain | more)


@pytest.fixture
def record() -> RunRecord:
    root = stage("teacher", 1_007_104, reused=True, reused_from="earlier")
    first = stage("300k", 357_120, ("teacher",), retention=Retention(parent=0.914, root=0.914), gate="passed", seconds=7.26)
    second = stage("100k", 111_040, ("300k", "teacher"), retention=Retention(parent=0.8312, root=0.7598), gate="warned", resumed_at=120)
    return run(root, first, second)


def test_rows_hold_every_figure_and_what_was_not_run(record: RunRecord) -> None:
    headers, lines = tables.rows(record)
    assert headers == ["model", "parameters", "bits/byte", "of parent", "of root", "gate", "seconds", "origin"]
    assert lines == [
        ["teacher", "1.01M", "2.022", "-", "-", "-", "182", "reused"],
        ["300k <- teacher", "357k", "2.022", "91.4 %", "91.4 %", "passed", "7.3", "computed"],
        ["100k <- 300k, teacher", "111k", "2.022", "83.1 %", "76.0 %", "warned", "182", "resumed at 120"],
        ["30k", "-", "-", "-", "-", "-", "-", "not run"],
    ]
    assert tables.table_cells(record)[2]["of root"] == "76.0 %"


def test_an_empty_run_lists_the_root_and_all_stages_as_not_run() -> None:
    _, lines = tables.rows(run(None))
    assert [(line[0], line[-1]) for line in lines] == [(name, "not run") for name in ("teacher", "300k", "100k", "30k")]


def test_classification_is_judged_by_accuracy() -> None:
    headers, lines = tables.rows(
        run(
            stage("teacher", 20_000, metrics={"accuracy": 0.9721, "nll": 0.1}, steps=0, seconds=0.0),
            planned=(),
            workload="image-classification",
        )
    )
    assert headers[2] == "accuracy"
    assert lines == [["teacher", "20k", "97.2 %", "-", "-", "-", "-", "imported"]]


def test_the_baseline_stands_below_the_models(record: RunRecord) -> None:
    assert record.teacher
    metrics = record.teacher.metrics | {"baseline_nll": 3.2, "baseline_bits_per_byte": 4.617}
    _, lines = tables.rows(record.model_copy(update={"teacher": record.teacher.model_copy(update={"metrics": metrics})}))
    assert lines[-1] == ["unigram", "-", "4.617", "-", "-", "-", "-", "baseline"]
    guess = {"accuracy": 0.9, "nll": 0.3, "baseline_accuracy": 0.512, "baseline_nll": 0.7}
    _, lines = tables.rows(run(stage("teacher", 9, metrics=guess), planned=(), workload="sequence-classification"))
    assert lines[-1] == ["majority class", "-", "51.2 %", "-", "-", "-", "-", "baseline"]


def test_the_terminal_table_fits_80_columns_and_cuts_nothing(record: RunRecord) -> None:
    long = stage("a-rather-long-name-for-a-student-model", 32_000, ("100k",), retention=Retention(parent=0.61, root=0.41), gate="stopped")
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tables.render_rich(record.model_copy(update={"stages": (*record.stages, long)})))
    printed = capture.get()
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    for cell in ("1.01M", "2.022", "83.1 %", "76.0 %", "warned", "resumed at", "120", "not run"):
        assert cell in printed, cell


def test_names_are_text_not_markup() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tables.render_rich(run(stage("[red]x[/red]", 10), planned=())))
    assert "[red]x[/red]" in capture.get()


def test_markdown_has_a_rule_and_escapes_what_would_break_it(record: RunRecord) -> None:
    lines = tables.render_markdown(record).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |"
    assert lines[3].startswith("| 300k &lt;- teacher | 357k | 2.022 | 91.4 % |")
    assert len(lines) == 6
    broken = tables.render_markdown(run(stage("a|b", 10), planned=()))
    assert "a\\|b" in broken


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (950, "950"),
        (999.6, "1k"),
        (32_064, "32.1k"),
        (999_499, "999k"),
        (999_600, "1M"),
        (1_007_104, "1.01M"),
        (1.24e9, "1.24B"),
        (3e12, "3T"),
        (0, "0"),
    ],
)
def test_counts_have_three_digits(number: float, text: str) -> None:
    assert fmt.human(number) == text
