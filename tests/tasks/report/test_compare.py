"""Comparison of two runs: differences, their direction, and missing figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from tasks.records.audit import AuditFigure, AuditRecord
from tasks.records.bench import BenchMachine, Case, ModelBench, Spread
from tasks.records.run import Retention, RunRecord, StageRecord
from tasks.report.comparison.compare import ComparedFigure, RunComparison, compare_runs
from tasks.report.comparison.page import write_comparison
from tasks.report.comparison.text import comparison_text
from tests.factories import data_record
from tests.tasks.reports import Page, check

SETTINGS = "name: python-stdlib\nseed: {seed}\nstages:\n- {{name: 100k, objective: {{alpha: {alpha}}}}}\n- {{name: 30k}}\n"


def other(record: RunRecord, root: Path, **more: Any) -> RunRecord:
    """Another run, a day later, with its own folder."""
    day = {"run": "20260302-140500-ef56", "started": "2026-03-02T14:05:00+00:00", "folder": str(root / "runs" / "20260302-140500-ef56")}
    return record.model_copy(update=day | more)


def changed(model: StageRecord, **more: Any) -> StageRecord:
    return model.model_copy(update={"weights_sha256": "ab" * 32, "fingerprint": "cd" * 32} | more)


def measured(seconds: float, tokens: int = 64) -> ModelBench:
    spread = Spread(p50=seconds, p95=2 * seconds, p99=3 * seconds, mean=seconds, count=9)
    machine = BenchMachine(processor="p", device="cpu", threads=1, dtype="fp32", torch="2")
    case = Case(batch_size=1, whole=spread, requests_per_second=1 / seconds)
    more = {"file_bytes": 1, "new_tokens": 8, "rounds": 9, "cases": (case,), "machine": machine}
    return ModelBench(name="30k", weights_sha256="ab" * 32, parameters=1, tokens=tokens, **more)


def keep(record: RunRecord, **settings: Any) -> None:
    Path(record.folder).mkdir(parents=True)
    (Path(record.folder) / "ladder.yaml").write_text(SETTINGS.format(**settings))


def figures(found: RunComparison, name: str) -> dict[str, ComparedFigure]:
    pair = next(pair for pair in found.models if pair.name == name)
    return {figure.name: figure for figure in pair.figures}


@pytest.fixture
def better(language: RunRecord, tmp_path: Path) -> RunRecord:
    """A run whose last student is better, keeps more, cost less FLOPs and took longer."""
    last = language.stages[-1]
    metrics = last.metrics | {"bits_per_byte": last.metrics["bits_per_byte"] - 0.25}
    kept = Retention(parent=0.9, root=0.8)
    last = changed(last, metrics=metrics, retention=kept, flops=last.flops / 2, seconds=2 * last.seconds)
    return other(language, tmp_path, stages=(*language.stages[:-1], last))


def test_each_difference_has_its_direction(language: RunRecord, better: RunRecord):
    shown = figures(compare_runs(language, better), "30k")
    assert {name: figure.direction for name, figure in shown.items()} == {
        "bits/byte": "better",  # lower
        "of parent": "better",  # higher
        "of root": "better",
        "parameters": "same",
        "FLOPs": "better",  # lower
        "training": "worse",
    }
    assert shown["bits/byte"].difference == pytest.approx(-0.25)
    assert shown["bits/byte"].shown[2] == "-0.250"
    assert shown["FLOPs"].shown[2] == "-50.0 %"
    assert shown["training"].shown == ("2 min 1 s", "4 min 3 s", "+100.0 %")
    root = language.stages[-1].retention.root
    assert root is not None
    assert shown["of root"].shown[2] == f"{100 * (0.8 - root):+.1f} points"
    back = figures(compare_runs(better, language), "30k")
    assert {figure.direction for figure in back.values()} == {"worse", "same", "better"}
    assert (back["bits/byte"].direction, back["training"].direction) == ("worse", "better")


def test_what_was_inherited_is_compared(language: RunRecord, better: RunRecord):
    def run(record: RunRecord, ece: float, inherited: float | None) -> RunRecord:
        figures = {"ece": ece, "root.inheritance": inherited, "root.confident_inheritance_0.9": None}
        audit = AuditRecord(
            **dict.fromkeys(("folder", "fingerprint", "parent", "root"), "x"),
            **dict.fromkeys(("rows", "documents", "judged"), 9),
            **dict.fromkeys(("reliability", "groups", "flagged", "few", "worst"), ()),
            figures={name: AuditFigure(value=value, rows=9, documents=9) for name, value in figures.items()},
            reused=False,
            seconds=1.0,
        )
        last = record.stages[-1].model_copy(update={"audit": audit})
        return record.model_copy(update={"stages": (*record.stages[:-1], last)})

    shown = figures(compare_runs(run(language, 0.05, 0.44), run(better, 0.07, 0.002)), "30k")
    assert (shown["inherited"].direction, shown["inherited"].shown[2]) == ("better", "-43.8 points")
    assert (shown["ECE"].direction, shown["ECE"].shown[:2]) == ("worse", ("0.050", "0.070"))
    assert "both sure" not in shown, "too few in both"


def test_nothing_is_judged_against_other_roots(language: RunRecord, better: RunRecord) -> None:
    assert better.teacher
    found = compare_runs(language, better.model_copy(update={"teacher": changed(better.teacher)}))
    directions = {name: figure.direction for name, figure in figures(found, "30k").items()}
    assert (directions["of root"], directions["of parent"], directions["bits/byte"]) == (None, "better", "better")
    assert figures(found, "30k")["of root"].difference is not None
    assert figures(found, "300k")["of parent"].direction is None, "its parent is the root"
    assert "the roots differ, so no figure against a root is better or worse" in found.notes


def test_accuracy_is_better_where_it_is_higher(digits: RunRecord, tmp_path: Path):
    small = digits.stages[0]
    more = changed(small, metrics=small.metrics | {"accuracy": small.metrics["accuracy"] + 0.02}, parameters=2 * small.parameters)
    shown = figures(compare_runs(digits, other(digits, tmp_path, stages=(more,))), "small")
    assert (shown["accuracy"].direction, shown["accuracy"].shown[2]) == ("better", "+2.0 points")
    assert (shown["parameters"].direction, shown["parameters"].shown[2]) == (None, "+100.0 %")


def test_one_and_the_same_model_is_said_to_be_so(language: RunRecord, better: RunRecord):
    found = compare_runs(language, better)
    assert [pair.same_weights for pair in found.models] == [True, True, True, False]
    assert all(figure.direction == "same" for pair in found.models[:3] for figure in pair.figures)


def test_a_model_that_only_one_run_has_is_shown_alone(language: RunRecord, tmp_path: Path):
    renamed = changed(language.stages[-1], name="20k")
    found = compare_runs(language, other(language, tmp_path, stages=(*language.stages[:-1], renamed)))
    assert [(pair.name, pair.only) for pair in found.models][-2:] == [("20k", "b"), ("30k", "a")]
    assert {(figure.difference, figure.direction) for pair in found.models[-2:] for figure in pair.figures} == {(None, None)}


def test_latency_is_compared_where_both_were_measured(language: RunRecord, better: RunRecord):
    slow, fast = measured(0.004), measured(0.003)
    assert "one request" not in figures(compare_runs(language, better), "30k")
    left, right = (
        {**run.__dict__, "stages": (*run.stages[:-1], changed(run.stages[-1], bench=bench))}
        for run, bench in ((language, slow), (better, fast))
    )
    shown = figures(compare_runs(RunRecord(**left), RunRecord(**right)), "30k")["one request"]
    assert (shown.shown, shown.direction) == (("4.00 ms", "3.00 ms", "-25.0 %"), "better")
    longer = RunRecord(**{**right, "stages": (*better.stages[:-1], changed(better.stages[-1], bench=measured(0.003, tokens=99)))})
    assert any("other lengths" in note for note in compare_runs(RunRecord(**left), longer).notes)


def test_settings_that_differ_are_named_by_their_stage(language: RunRecord, better: RunRecord):
    keep(language, seed=0, alpha=0.9)
    keep(better, seed=1, alpha=0.5)
    assert compare_runs(language, better).settings == ("seed: 0 -> 1", "stages.100k.objective.alpha: 0.9 -> 0.5")


def test_without_settings_the_identities_tell(language: RunRecord, better: RunRecord):
    last = better.stages[-1].model_copy(update={"identity": {"seed": 4}})
    found = compare_runs(language, better.model_copy(update={"stages": (*better.stages[:-1], last)}))
    assert found.settings == ("30k.seed: None -> 4",)


def test_what_keeps_figures_from_comparing_is_said(language: RunRecord, tmp_path: Path):
    data = data_record(fingerprint="e" * 64, content_hash="other")
    found = compare_runs(language, other(language, tmp_path, status="interrupted", data=data, environment={"processor": "another"}))
    assert [note.partition(":")[0].partition(",")[0] for note in found.notes] == [
        "20260302-140500-ef56",
        "the data differ",
        "the machines differ",
        "one run each",
    ]


@pytest.mark.parametrize("case", ["same", "workload"])
def test_what_cannot_be_compared_is_refused(language: RunRecord, digits: RunRecord, tmp_path: Path, case: str):
    second, words = {
        "same": (language, "RUN: got '20260301-140500-ab12'; allowed: two different runs. "),
        "workload": (
            other(digits, tmp_path),
            "RUN: got '20260302-140500-ef56 with the workload image-classification'; "
            "allowed: a run with the workload of 20260301-140500-ab12, causal-lm. ",
        ),
    }[case]
    with pytest.raises(UserError) as refused:
        compare_runs(language, second)
    assert str(refused.value).startswith(words)


def test_the_text_fits_80_columns(language: RunRecord, better: RunRecord):
    long = better.stages[-1].model_copy(update={"name": "s" * 64})
    found = compare_runs(language, better.model_copy(update={"stages": (*better.stages, long)}))
    text = comparison_text(found)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("teacher (same weights)", "-0.250  better", "-50.0 %  better", "+100.0 %  worse"):
        assert words in text, words


def test_the_page_needs_nothing_but_itself(language: RunRecord, better: RunRecord):
    found = compare_runs(better, language)
    path = write_comparison(found, better, language)
    assert path == Path(better.folder) / "compare-20260302-140500-ef56-20260301-140500-ab12.html", "in the newer run's folder"
    shown: Page = check(path.read_text())
    assert shown.tags.count("svg") == 2
    assert shown.text.count("worse") == 4
    assert "30k 2.906 with 32.1k parameters" in "".join(shown.labels)


def test_runs_without_models_have_a_page_too(language: RunRecord, tmp_path: Path):
    empty = language.model_copy(update={"teacher": None, "stages": (), "status": "failed"})
    later = other(empty, tmp_path)
    shown = check(write_comparison(compare_runs(empty, later), empty, later).read_text())
    assert "Neither run has finished a model." in shown.text
    assert "svg" not in shown.tags
