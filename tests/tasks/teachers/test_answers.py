"""Answers from a file in place of a teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from models.architectures.answers import ANSWERS, load_answers, text_key
from models.data.batches import TrainingBatches
from models.signals.cache import keys_of
from tasks.audit.audit import audit_model
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.plan import make_plan
from tasks.records.run import StageRecord
from tasks.teachers.quality import accept_teacher
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of, ladder_of_file

TRAINING = {"steps": 40, "batch_size": 16, "learning_rate": 3e-3, "precision": "fp32", "validate_every": 40, "checkpoint_every": 40}
TEXTS = [(f"number {i} is {word}", word) for i in range(40) for word in ("good", "bad")]


def rows(sure: float = 0.9) -> dict[str, list[Any]]:
    """Answers to every text, in an order of their own."""
    texts = list(reversed(TEXTS))
    good = [sure if word == "good" else 1 - sure for _, word in texts]
    return {"text": [text for text, _ in texts], "GOOD": good, "Bad": [1 - p for p in good]}


def write(folder: Path, columns: dict[str, list[Any]]) -> None:
    pq.write_table(pa.table(columns), folder / "answers.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(f"{text},{word}\n" for text, word in TEXTS)
    (tmp_path / "rows.csv").write_text("text,label\n" + lines)
    (tmp_path / "home").mkdir()
    write(tmp_path, rows())
    return tmp_path


def ladder_of(stage: dict[str, Any] | None = None, student: dict[str, Any] | None = None, **teacher: Any) -> Ladder:
    shape = {"family": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
    answers = {"source": "answers", "path": "answers.parquet", "classes": ["GOOD", "Bad"], "parameters": 10**6}
    return ladder_of_file(
        length=32,
        teacher=answers | teacher,
        evaluation={"examples": 64, "samples": 0},
        stages=[{"name": "small", "student": {"shape": shape, **(student or {})}, "training": TRAINING, **(stage or {})}],
    )


def refused(folder: Path, **teacher: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare_teacher(inputs_of(ladder_of(**teacher), folder))
    return str(caught.value)


@pytest.mark.parametrize("source", ["live", "cached"])
def test_answers_teach_and_are_evaluated_and_audited_as_a_model(folder: Path, source: str) -> None:
    ladder = ladder_of({"objective": {"alpha": 1.0}, "signals": {"source": source}})
    inputs = inputs_of(ladder, folder)
    assert inputs.data.corpus().info.label_names == ("GOOD", "Bad")
    root = accept_teacher(evaluate_model(prepare_teacher(inputs), [], inputs, "fp32"), inputs)
    assert root.parameters == 10**6
    assert root.metrics["accuracy"] == 1
    assert root.metrics["nll"] == pytest.approx(-np.log(0.9), abs=1e-5)
    student = evaluate_model(train_student(ladder.stages[0], [root], inputs), [root], inputs, "fp32")
    assert student.metrics["accuracy"] > 0.95
    assert student.metrics["root_accuracy"] == 1
    assert student.metrics["kl_root"] < 0.1  # as sure as the answers, and no surer: the labels have no weight
    audited = audit_model(student, ladder.stages[0], [root], inputs, None)
    assert isinstance(audited, StageRecord)
    assert audited.audit is not None
    assert prepare_teacher(inputs).reused


def test_it_is_planned_as_an_import(folder: Path) -> None:
    ladder = ladder_of()
    before = make_plan(ladder, folder, Home(folder / "home")).teacher
    assert (before.action, before.parameters, before.flops) == ("import", 10**6, 0.0)
    prepare_teacher(inputs_of(ladder, folder))
    assert make_plan(ladder, folder, Home(folder / "home")).teacher.action == "reuse"


def test_keys_are_those_of_batches(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    batch = TrainingBatches(inputs.data.corpus(), 8, 0).at(0)
    lengths = batch.inputs["attention_mask"].sum(dim=1).tolist()
    ids = batch.inputs["input_ids"].numpy()
    assert keys_of(batch).tolist() == [text_key(row[:length]) for row, length in zip(ids, lengths, strict=True)]
    model = load_answers(Path(prepare_teacher(inputs).folder))
    right = model(**batch.inputs).logits.argmax(-1) == batch.targets
    assert bool(torch.all(right))


def test_a_column_of_lists(folder: Path) -> None:
    columns = rows()
    pairs = [list(pair) for pair in zip(columns["GOOD"], columns["Bad"], strict=True)]
    write(folder, {"review": columns["text"], "p": pairs})
    root = prepare_teacher(inputs_of(ladder_of(text="review", probabilities="p"), folder))
    other = json.loads((Path(root.folder) / ANSWERS).read_text())
    assert other == {"parameters": 10**6, "classes": ["GOOD", "Bad"]}
    pairs[3] = [1.0]
    write(folder, {"review": columns["text"], "p": pairs})
    assert "row 4: 1 numbers'; allowed: 2, one for each" in refused(folder, text="review", probabilities="p")


def test_documents_without_an_answer_are_counted_and_the_first_is_shown(folder: Path) -> None:
    columns = rows()
    write(folder, {name: values[:-2] for name, values in columns.items()})
    message = refused(folder)
    assert "without an answer to 2 of 80 documents" in message
    assert "'number 0 is " in message


@pytest.mark.parametrize(("good", "bad"), [(3.5, -3.5), (float("nan"), 0.5), (0.4, 0.4), (-0.1, 1.1)])
def test_what_is_no_distribution_is_refused_by_its_row(folder: Path, good: float, bad: float) -> None:
    columns = rows()
    columns["GOOD"][2], columns["Bad"][2] = good, bad
    write(folder, columns)
    message = refused(folder)
    assert "row 3: " in message
    assert "that add up to 1; 1 rows are none" in message


def test_files_and_columns_that_are_not_there(folder: Path) -> None:
    assert "an existing Parquet file of answers" in refused(folder, path="gone.parquet")
    assert "without the columns review'; allowed: columns: text, GOOD, Bad" in refused(folder, text="review")
    (folder / "answers.parquet").write_text("text")
    assert "a Parquet file of answers" in refused(folder)


def test_what_needs_a_model_is_refused_with_the_settings() -> None:
    with pytest.raises(ValueError, match=r"stages\[0\]\.student\.initialisation: got 'layers'; allowed: random, below answers"):
        ladder_of(student={"initialisation": "layers"})
    with pytest.raises(ValueError, match=r"stages\[0\]\.objective\.features: got some; allowed: none, below answers"):
        ladder_of({"objective": {"features": [{"kind": "hidden"}]}})
    with pytest.raises(ValueError, match=r"teacher\.classes: got \['GOOD'\]; allowed: two or more names"):
        ladder_of(classes=["GOOD"])
    with pytest.raises(ValueError, match=r"stages\[0\]\.gate\.policy: got 'insert'; allowed: any other, below answers"):
        ladder_of({"gate": {"policy": "insert"}})
