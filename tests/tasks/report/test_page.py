import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import StoreError
from tasks.records import format as fmt
from tasks.records.data import DataCounts
from tasks.records.run import RunRecord, SampleRecord
from tasks.report.page import write_report
from tasks.report.plots import curves, style
from tasks.report.plots.quality import Control, quality_svg
from tasks.report.reproduce import reproduction
from tasks.report.sections import SECTIONS, outcome, samples, slices
from tasks.report.sections.costs import costs
from tasks.report.sections.slices import slice_rows
from tests.factories import data_record, model_record, run_record
from tests.tasks.reports import MODULES, PACKAGES, SETTINGS, Page, long_ladder, run

pytestmark = pytest.mark.thorough


def test_a_finished_language_run_shows_every_models_figures(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language)
    assert language.teacher
    for record in (language.teacher, *language.stages):
        for figure in (
            f"{record.metrics['bits_per_byte']:.3f}",
            record.fingerprint[:12],
            record.weights_sha256,
            record.folder,
            f"{record.parameters:,}",
        ):
            assert figure in shown.text, (record.name, figure)
        assert f"mlflow-{record.name}" in shown.text
        assert f"prefect-{record.name}" in shown.text
    assert "The root teacher has 1.01M parameters and scores 2.023 bits per byte." in shown.text
    assert "100k keeps 86.2 % of 300k and 80.6 % of the root (perplexity ratio) with 9.1x fewer parameters; its gate passed." in shown.text
    assert "300k keeps 93.4 % of the root (perplexity ratio) with 2.8x fewer parameters; its gate passed." in shown.text
    assert "root retention 54.2 % is below 60.0 %" in shown.text
    assert "One seed, and no control arm was run" in shown.text
    assert "2026-03-01 14:05 UTC to 2026-03-01 14:12 UTC on A Processor 9000, 2 cores, 7.8 GiB" in shown.text
    assert "stages.100k.objective.alpha=0.8" in shown.text
    assert all(name in shown.text for name in PACKAGES)


def test_reused_and_resumed_models_say_so_and_their_cost_is_kept_apart(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language)
    assert "reused from run 20260228-090000-cd34" in shown.text
    assert "resumed at step 120" in shown.text
    sums = costs(language)[-2:]
    assert [(line["model"], line["steps"], line["time"]) for line in sums] == [
        ("Sum computed in this run", "1,200", "6 min 4 s"),
        ("Sum reused", "800", "6 min 48 s"),
    ]
    assert sums[0]["FLOPs"] == fmt.operations(sum(stage.flops for stage in language.stages)) == "7.5 TFLOP"


def test_slices_are_ordered_by_what_is_kept_and_small_ones_flagged(language: RunRecord, page: Callable[..., Page]) -> None:
    rows = slice_rows(language)
    kept = [row.retention for row in rows]
    assert kept == sorted(kept, key=lambda value: value or 0.0)
    assert language.teacher
    first = rows[0]
    expected = math.exp(language.teacher.slices[first.name]["nll"] - language.stages[-1].slices[first.name]["nll"])
    assert first.retention == pytest.approx(expected)
    assert [row.name for row in rows if row.few] == ["dbm"]
    shown = page(language)
    assert f"All {len(MODULES)} slices" in shown.text
    assert f"Fewer than 1,000 tokens (marked few) in 1 of {len(MODULES)} slices" in shown.text


def test_a_stopped_classification_run_tells_why_and_what_was_not_run(digits: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(digits)
    for words in (
        "stopped",
        "Why it stopped",
        "small keeps 87.1 % of the root (accuracy ratio) with 3.8x fewer parameters; its gate refused it.",
        "The root teacher has 26.6k parameters and scores 96.9 % accuracy.",
        "tiny: not run, a gate stopped the run.",
        "root retention 87.1 % is below the 95.0 %",
        "84.4 %",
        "Not trained here, hence no curve: teacher.",
        "Fewer than 30 examples (marked few) in 6 of 10 slices",
        "270 held-out examples",
        "accuracy in % (higher is better)",
        "small, refused",
    ):
        assert words in shown.text, words
    assert "bits per byte" not in shown.text


def test_a_failed_run_with_nothing_finished_still_reports(tmp_path: Path, page: Callable[..., Page]) -> None:
    error = "data.paths: got 'x'; allowed: <files & globs>. Name one."
    shown = page(run(tmp_path, status="failed", error=error, environment={}))
    assert error in shown.text
    assert "teacher, 300k, 100k, 30k: not finished, the run failed." in shown.text
    assert "an unrecorded machine" in shown.text
    assert "svg" not in shown.tags


def test_a_running_run_reports_what_there_is(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language.model_copy(update={"status": "running", "finished": None, "seconds": None, "stages": language.stages[:1]}))
    assert "300k keeps 93.4 %" in shown.text
    assert "100k, 30k: not finished yet." in shown.text
    assert shown.tags.count("svg") == 4


def test_what_the_models_write_is_shown_side_by_side(language: RunRecord, page: Callable[..., Page]) -> None:
    assert "Generated text" not in page(language).text
    assert language.teacher
    said = [SampleRecord(prompt="def f(", text="<b>x"), SampleRecord(prompt="import ", text="")]
    teacher = language.teacher.model_copy(update={"samples": tuple(said)})
    student = language.stages[0].model_copy(update={"samples": (said[0].model_copy(update={"text": "y):"}), said[1])})
    text = page(language.model_copy(update={"teacher": teacher, "stages": (student, *language.stages[1:])})).text
    section = text[text.index("Generated text") :]
    for part in ("def f(", "<b>x", "y):", "import ", "(nothing)"):
        assert part in section


def test_answers_stand_under_the_beginning_that_they_continue(language: RunRecord) -> None:
    assert language.teacher
    twice = tuple(SampleRecord(prompt="# Licence", text=text) for text in ("old", "older"))  # of an older version
    teacher = language.teacher.model_copy(update={"samples": twice})
    now = (SampleRecord(prompt="def f(", text="x"), SampleRecord(prompt="# Licence", text="new"))
    last = language.stages[-1].model_copy(update={"samples": now})
    found = samples.section(language.model_copy(update={"teacher": teacher, "stages": (*language.stages[:-1], last)}))
    assert found
    assert {prompt["text"]: [name for name, _ in prompt["answers"]] for prompt in found["prompts"]} == {
        "# Licence": ["teacher", "30k"],
        "def f(": ["30k"],
    }


def test_every_figure_of_quality_is_in_the_report(digits: RunRecord, page: Callable[..., Page]) -> None:
    words = [word for word in page(digits).words if word.strip()]
    begin = words.index("macro F1") - 2
    assert words[begin : begin + 5] == ["model", "accuracy", "macro F1", "nll, nats", "ECE"]
    assert words[begin + 5 : begin + 15] == ["teacher", "96.9 %", "95.9 %", "0.200", "0.020", "small", "84.4 %", "83.4 %", "0.200", "0.020"]


def test_a_model_that_learned_nothing_is_named_and_its_baseline_shown(digits: RunRecord, page: Callable[..., Page]) -> None:
    assert digits.teacher
    assert "learned nothing" not in page(digits).text
    guess = {"baseline_accuracy": 0.1, "baseline_nll": 2.31, "baseline_macro_f1": 0.018}
    same = digits.stages[0].model_copy(update={"metrics": {"accuracy": 0.1, "nll": 2.4, "distinct_answers": 1.0, **guess}})
    shown = page(digits.model_copy(update={"stages": (same,)}))
    assert "it has learned nothing: it gives the same class for every input (majority class 10.0 %)." in shown.text
    words = [word for word in shown.words if word.strip()]
    at = words.index("majority class")
    assert words[at : at + 5] == ["majority class", "10.0 %", "1.8 %", "2.310", "-"]
    assert words[words.index("majority class", at + 1) :][:3] == ["majority class", "-", "10.0 %"], "in the models' table, too"


def test_hostile_text_stays_text(language: RunRecord, page: Callable[..., Page]) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    slices = {evil: {"count": 5000.0, "nll": 1.0, "bits_per_byte": 1.4}}
    stage = language.stages[-1].model_copy(update={"name": evil[:60], "gate_reasons": (evil,), "slices": slices})
    changed = {"ladder": evil, "error": evil, "status": "failed", "stages": (*language.stages[:-1], stage), "environment": {evil: evil}}
    shown = page(language.model_copy(update=changed), f"name: x\ndescription: {evil}\n")
    assert "img" not in shown.tags
    assert shown.text.count(evil) >= 5
    assert evil in "".join(shown.words[shown.words.index("Every setting") :])


def test_a_password_in_an_address_is_left_out(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language.model_copy(update={"mlflow_uri": "postgresql://ladder:s3cr@t@db:5432/mlflow"}))
    assert "postgresql://db:5432/mlflow" in shown.text
    assert "s3cr" not in shown.text


def test_a_report_is_replaced_whole_or_not_at_all(language: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(language.folder)
    path = write_report(language.model_copy(update={"status": "running"}), SETTINGS, folder)
    before = path.read_text()
    assert write_report(language, SETTINGS, folder) == path
    after = path.read_text()
    assert before != after

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write_report(language.model_copy(update={"status": "failed"}), SETTINGS, folder)
    assert path.read_text() == after
    assert [file.name for file in folder.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (
            "7m: the whole ladder fits, about 170 s; nothing was shortened",
            "Budget 7m: the whole ladder fits, about 170 s; nothing was shortened.",
        ),
        ("7m: half the steps", "A shortened ladder, budget 7m: half the steps. Its figures are those of the shorter trainings."),
    ],
)
def test_a_budget_says_whether_it_changed_anything(language: RunRecord, page: Callable[..., Page], budget: str, says: str) -> None:
    shown = page(language.model_copy(update={"budget": budget}))
    assert says in shown.text
    assert ("shorter trainings" in shown.text) == says.startswith("A shortened")


def test_a_damaged_curve_is_named_and_the_rest_is_drawn(language: RunRecord, page: Callable[..., Page]) -> None:
    (Path(language.stages[0].folder) / "curve.json").write_text('{"train": [')
    shown = page(language)
    assert "The curve's file is damaged: 300k." in shown.text
    assert shown.tags.count("svg") == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (4.24, "4.2 s"), (42, "42 s"), (99.7, "1 min 40 s"), (7199, "119 min 59 s"), (18_720, "5 h 12 min")],
)
def test_durations_read_well(value: float, text: str) -> None:
    assert fmt.duration(value) == text


def test_a_hundred_stages_do_not_break_it(tmp_path: Path, page: Callable[..., Page]) -> None:
    record = long_ladder(tmp_path, 100)
    shown = page(record)
    size = (Path(record.folder) / "report.html").stat().st_size
    assert size < 2_000_000, f"{size:,} bytes"
    quality = quality_svg(record)
    assert quality
    named = [stage.name for stage in record.stages if f">{stage.name}</text>" in quality]
    assert len(named) == style.NAMED - 1, "the teacher and some stages are named, the others only drawn"
    assert named[-1] == "stage-100"
    assert "; and 93 between." in shown.labels[0]
    assert quality.count("<use ") >= 101
    assert all(words in shown.text for words in ("Reasons of 100 gates", "All 101 sentences", "89 more", "93 models between are left out"))
    assert all(stage.fingerprint[:12] in shown.text for stage in record.stages)


def test_the_pictures_say_their_figures_to_those_who_do_not_see_them(language: RunRecord, page: Callable[..., Page]) -> None:
    labels = page(language).labels
    assert len(labels) == 4
    last = language.stages[-1]
    assert f"30k {last.metrics['bits_per_byte']:.3f} with 32.1k parameters" in labels[0]
    assert "bits per byte (lower is better): teacher 2.023 with 1.01M parameters; 300k" in labels[0]
    curve = curves.read_curve(Path(last.folder))
    assert curve
    assert f"30k {curve.valid[0, 1]:.3f} at step 50, {curve.valid[-1, 1]:.3f} at step 400" in labels[2]


def test_a_proof_comes_first_and_its_arms_are_drawn(
    language: RunRecord, page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Whether the ladder was worth it is not known: no proof was run." in page(language).text
    assert "ladder prove python-stdlib stages.100k.objective.alpha=0.8" in page(language).text
    verdict = "Staged is better than direct-matched by 0.021 bits per byte (95 % interval 0.010 to 0.032, five seeds)."
    arms = (Control("direct-matched", 32_064, 2.93, 2.91, 2.95), Control("scratch", 32_064, 3.1))
    proof = {"verdict": verdict, "controls": arms, "intervals": {"30k": (2.88, 2.92)}}
    # Stands in for the section of proofs: slices are left out, what it would say is said.
    monkeypatch.setitem(SECTIONS, "slices", lambda record: {**(slices.section(record) or {}), **proof})
    shown = page(language)
    assert shown.text.index(verdict) < shown.text.index("Results") < shown.text.index("Models, on the validation split")
    assert "no proof was run" not in shown.text
    assert "One seed, and no control arm was run" not in shown.text
    assert "30k 2.906 (2.880 to 2.920) with 32.1k parameters." in shown.labels[0]
    assert "Controls: direct-matched 2.930 (2.910 to 2.950) with 32.1k parameters; scratch 3.100 with 32.1k parameters." in shown.labels[0]
    assert "Hollow: control arms" in shown.text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("interrupted", "The run was interrupted: 1 of 3 stages is finished, and the report shows what there is."),
        ("cancelled", "The run was cancelled: 1 of 3 stages is finished"),
        ("failed", "The run failed: 1 of 3 stages is finished"),
        ("running", "The run has not ended yet: 1 of 3 stages is finished"),
    ],
)
def test_a_run_that_was_stopped_in_the_middle_says_so(language: RunRecord, page: Callable[..., Page], status: str, words: str) -> None:
    record = language.model_copy(update={"status": status, "stages": language.stages[:1]})
    assert words in page(record).text
    assert "The run" not in page(language).text


def test_the_commands_that_make_the_same_models_again(language: RunRecord, page: Callable[..., Page], tmp_path: Path) -> None:
    assert "git checkout 4f0c2d1e9b\nladder run python-stdlib stages.100k.objective.alpha=0.8" in "".join(page(language).words)
    dirty = language.model_copy(update={"environment": {"git_commit": "4f0c", "git_dirty": True}, "whole": True})
    assert reproduction(dirty) == [
        "git checkout 4f0c  # and the changes that were not committed",
        f"ladder run {tmp_path}/runs/20260301-140500-ab12/ladder.yaml",
    ]
    gone = language.model_copy(update={"environment": {}, "source": "/gone/ladder.yaml"})
    assert reproduction(gone) == [f"ladder run {tmp_path}/runs/20260301-140500-ab12/ladder.yaml"]
    assert reproduction(gone.model_copy(update={"only": "100k"})) == ["ladder rerun 20260301-140500-ab12"]


def test_remarks_on_the_data_stand_among_the_results() -> None:
    remark = "3 documents of the given split test (25.0 %) stand in train too; they are kept in both"
    record = run_record(data=data_record(counts=DataCounts(notes=(remark,))))
    assert f"Data: {remark}." in outcome.verdicts(record)


def test_a_root_with_another_tokenizer_is_said_to_be_compared_by_bytes() -> None:
    root = model_record("teacher", metrics={"nll": 1.0, "bits_per_byte": 1.0, "perplexity": 2.7})
    assert not any("tokenizer" in sentence for sentence in outcome.verdicts(run_record("tiny-1", root)))
    other = root.model_copy(update={"identity": {"tokenizer": "a hash"}})
    assert "its tokenizer is not that of its students, so bits per byte" in outcome.verdicts(run_record("tiny-1", other))[0]
