"""Promoted students of three workloads, trained for seconds, and windows of rows like theirs."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.home import Home
from conf.schema.ladder import Ladder
from tasks.data.prepare import prepare_data
from tasks.monitoring.reference import Watched, watched
from tasks.records.run import RunRecord
from tasks.registry.versions import Version
from tasks.runtime.runs.run_registry import Context, load_run, save
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import run_record

WORDS = {"bad": ("dull", "cold", "late", "grim"), "good": ("warm", "superb", "quiet", "clean")}
BERT = {"family": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
LLAMA = {"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
VIT = {"family": "vit", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32, "patch_size": 4}


def review(draw: random.Random, label: str, words: dict[str, tuple[str, ...]] = WORDS) -> str:
    """A text of a class."""
    return f"room {draw.randrange(1000)} was {' and '.join(draw.choices(words[label], k=3))}"


def reviews(number: int, seed: int, words: dict[str, tuple[str, ...]] = WORDS, flip: float = 0.0) -> list[dict[str, Any]]:
    """Rows of a window, the first of this hour; a share of the labels is wrong."""
    draw, start = random.Random(seed), datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=seed)
    rows = []
    for place in range(number):
        label = draw.choice(["bad", "good"])
        shown = label if draw.random() >= flip else {"bad": "good", "good": "bad"}[label]
        time = (start + timedelta(seconds=place)).isoformat()
        rows.append({"time": time, "input": review(draw, label, words), "label": shown, "request": f"r-{seed}-{place}"})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a window as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def promote(folder: Path, **settings: Any) -> Watched:
    """Train a ladder of one stage, keep its run, and return its student as version 1."""
    training = {"steps": 60, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"}
    plain: dict[str, Any] = {
        "name": "tiny",
        "compute": {"at_once": None, "device": "cpu"},
        "evaluation": {"examples": 64, "samples": 0},
        "monitoring": {"shadow_rows": 0},
        **settings,
    }
    shape = plain.pop("shape")
    plain["teacher"] = {"source": "train", "shape": shape, "training": training}
    plain["stages"] = [{"name": "small", "student": {"shape": shape}, "training": training}]
    ladder = Ladder.model_validate(plain)
    home = Home(folder / "home")
    home.runs.mkdir(parents=True, exist_ok=True)
    context = Context(run="tiny-1", ladder="tiny", home=str(home.root), base=str(folder))
    inputs = StageInputs(ladder, prepare_data(ladder, context), context)
    teacher = prepare_teacher(inputs)
    student = train_student(ladder.stages[0], [teacher], inputs)
    record = run_record("tiny-1", teacher, student, workload=ladder.workload, data=inputs.data, folder=str(home.runs / "tiny-1"))
    save(home, record)
    (home.runs / "tiny-1" / "ladder.yaml").write_text(yaml.safe_dump(ladder.model_dump(mode="json")))
    return watched(home, version_of(record))


def text_ladder(folder: Path, **monitoring: Any) -> dict[str, Any]:
    """Settings of a ladder on 1,200 reviews in a table, half of them held out."""
    draw = random.Random(0)
    lines = [json.dumps({"text": review(draw, label), "label": label}) for label in ("bad", "good") for _ in range(600)]
    (folder / "reviews.jsonl").write_text("\n".join(lines) + "\n")
    data = {"source": "files", "paths": ["reviews.jsonl"], "sequence_length": 48, "valid_fraction": 0.1, "test_fraction": 0.45}
    tokenizer = {"kind": "bpe", "vocabulary": 300}
    return {"workload": "sequence-classification", "data": data, "tokenizer": tokenizer, "shape": BERT, "monitoring": monitoring}


@pytest.fixture(scope="module")
def texts_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    promote(folder, **text_ladder(folder, shadow_rows=40))
    return folder / "home"


@pytest.fixture
def texts(texts_once: Path) -> Iterator[Watched]:
    """A classifier of reviews, whose history and windows are those of the test alone."""
    yield reopened(texts_once)
    for name in ("monitoring", "windows"):
        shutil.rmtree(texts_once / name, ignore_errors=True)


def reopened(root: Path) -> Watched:
    """The version of a home that `promote` has made."""
    record = load_run(Home(root), "tiny-1")
    return watched(Home(root), version_of(record))


def version_of(record: RunRecord) -> Version:
    """The last student of a run as version 1."""
    last = record.stages[-1]
    made = (last.fingerprint, last.weights_sha256, Path(last.folder), record.workload, {})
    return Version("tiny", "1", ("champion",), record.run, last.name, *made)
