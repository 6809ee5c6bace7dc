"""The worst examples of an audit: which, and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from models.evaluation.audit_rows import AuditRows, Predictions, TeacherComparison
from tasks.audit.worst_examples import AFTER, TOGETHER, Example, chosen, write_worst


def rows(position: list[int] | None = None) -> AuditRows:
    target, parent, student = [0] * 8, [1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 2, 1, 2, 0, 1, 1]
    sure = {"student": [0.6, 0.9, 0.9, 0.5, 0.8, 1.0, 0.7, 0.95], "parent": [0.9, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.99]}
    zero = np.zeros(8, dtype=np.int32)
    models = {
        name: Predictions(np.array(predicted, dtype=np.int32), np.array(sure[name], np.float32), zero + np.float32(1), zero + np.float32(1))
        for name, predicted in (("student", student), ("parent", parent))
    }
    at = np.arange(8, dtype=np.int32)
    flat = np.zeros(8, np.float32)
    place = np.array(position or [0] * 8, dtype=np.int32)
    return AuditRows(np.array(target, np.int32), zero, at, place, at.astype(np.int64), models, {"parent": TeacherComparison(flat, flat)})


def test_the_surest_come_first_and_halves_fill_each_other() -> None:
    assert chosen(rows(), 4) == [(TOGETHER, 7), (TOGETHER, 1), (AFTER, 4), (AFTER, 6)]
    assert chosen(rows(), 100) == [(TOGETHER, 7), (TOGETHER, 1), (TOGETHER, 0), (AFTER, 4), (AFTER, 6), (AFTER, 3)]
    assert chosen(rows(), 5) == [(TOGETHER, 7), (TOGETHER, 1), (TOGETHER, 0), (AFTER, 4), (AFTER, 6)]
    assert chosen(rows(), 0) == []


def test_a_language_models_frequent_mistake_does_not_fill_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.audit.worst_examples.ALIKE", 1)
    assert chosen(rows(list(range(8))), 100) == [(TOGETHER, 7), (AFTER, 4), (AFTER, 6)]


def test_the_file_has_the_inputs(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 2, 2)
    models = ({"student": "7", "parent": "7"}, {"student": 0.9, "parent": 0.8})
    examples = [Example(TOGETHER, 3, 4, 0, "a", "1", *models, image=image), Example(AFTER, 5, 6, 9, "a", "1", *models, text="x" * 500)]
    write_worst(tmp_path / "w.parquet", examples)
    table = parquet.read_table(tmp_path / "w.parquet").to_pylist()
    assert np.array(table[0]["pixels"]).reshape(table[0]["shape"]) == pytest.approx(image)
    assert (table[1]["text"], table[1]["position"], table[1]["student_answer"]) == ("x" * 500, 9, "7")
    assert examples[0].shown()["picture"].startswith("data:image/png;base64,")
    assert len(examples[1].shown()["text"]) == 120
    write_worst(tmp_path / "none.parquet", [])
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0
