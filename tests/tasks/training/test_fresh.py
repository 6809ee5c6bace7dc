"""`--fresh` computes anew training, import, evaluation, speed and audit of every model from `--start-at` on, once in a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.loading.load import load
from conf.schema.teacher import TrainedTeacher
from tasks.audit.audit import audit_model
from tasks.bench.bench import bench_model
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student

pytestmark = pytest.mark.thorough

TINY = """
name: tiny
workload: image-classification
data: {source: digits}
evaluation: {examples: 40}
compute: {at_once: null}
audit: {resamples: 100}
bench: {batch_sizes: [1], repeats: 1, warmup: 0, stage_seconds: 1}
defaults:
  training: {steps: 2, batch_size: 8, precision: fp32}
teacher:
  source: train
  shape: {family: vit, hidden_size: 8, layers: 1, heads: 2, feed_forward: 16}
  training: {steps: 2, batch_size: 8, precision: fp32}
stages:
  - name: one
    student: {shape: {family: vit, hidden_size: 8, layers: 1, heads: 2, feed_forward: 8}}
"""
KINDS = {"evaluation", "bench", "audit", "teacher", "stage"}


def run(folder: Path, name: str, *, fresh: bool = False, kept: tuple[str, ...] = (), imported: bool = False) -> set[tuple[str, str]]:
    """All steps of a ladder in a run of this name; kind and name of the results in the store that it has made."""
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    ladder = load(str(path)).ladder
    context = Context(run=name, ladder="tiny", home=str(folder / "home"), base=str(folder), fresh=fresh, kept=kept)
    inputs = StageInputs(ladder, prepare_data(ladder, context), context)
    assert isinstance(ladder.teacher, TrainedTeacher)
    teacher = prepare_teacher(inputs)
    if imported:
        given = load(str(path), [f"teacher={{source: checkpoint, path: {teacher.folder}}}"]).ladder
        inputs = StageInputs(given, inputs.data, context)
        teacher = prepare_teacher(inputs)
    teacher = bench_model(evaluate_model(teacher, [], inputs, "fp32"), ladder, context)
    student = train_student(ladder.stages[0], [teacher], inputs)
    student = bench_model(evaluate_model(student, [teacher], inputs, "fp32"), ladder, context)
    audit_model(student, ladder.stages[0], [teacher], inputs)
    paths = (folder / "home" / "store").glob("*/*/manifest.json")
    made = {path: json.loads(path.read_text()) for path in paths if path.parents[1].name in KINDS}
    return {(path.parents[1].name, manifest["name"]) for path, manifest in made.items() if manifest["run"] == name}


EVERYTHING = {("teacher", "teacher"), ("stage", "one"), ("audit", "one")} | {
    (kind, name) for kind in ("evaluation", "bench") for name in ("teacher", "one")
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_every_kind_is_computed_anew_once(folder: Path):
    assert run(folder, "first") == EVERYTHING
    assert run(folder, "second") == set(), "without --fresh"
    assert run(folder, "third", fresh=True) == EVERYTHING
    before = {path: path.stat().st_mtime_ns for path in (folder / "home" / "store").glob("*/*/manifest.json")}
    assert run(folder, "third", fresh=True) == EVERYTHING, "the same run, continued"
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is made twice by a run"


def test_before_start_at_nothing_is_computed_anew(folder: Path):
    run(folder, "first")
    anew = run(folder, "second", fresh=True, kept=("teacher",))
    assert anew == {("stage", "one"), ("evaluation", "one"), ("bench", "one"), ("audit", "one")}


def test_an_import_is_made_anew(folder: Path):
    run(folder, "first", imported=True)
    imports = [path for path in (folder / "home/store/teacher").glob("*/manifest.json") if "checkpoint" in path.read_text()]
    assert len(imports) == 1
    assert json.loads(imports[0].read_text())["run"] == "first"
    run(folder, "second", fresh=True, imported=True)
    assert json.loads(imports[0].read_text())["run"] == "second"
