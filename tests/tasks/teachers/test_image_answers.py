"""Answers to images from a file in place of a teacher."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from tasks.audit.audit import audit_model
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.plan import make_plan
from tasks.planning.preflight import check_ladder
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.quality import accept_teacher
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student

pytestmark = pytest.mark.thorough

COUNT = 40  # images of each class
SURE = 0.9


def picture(kind: str, number: int) -> Image.Image:
    """An image whose left or right half is bright."""
    levels = np.random.default_rng([number, kind == "left"]).integers(0, 60, (8, 8, 3))
    levels[:, slice(0, 4) if kind == "left" else slice(4, 8)] += 180
    return Image.fromarray(levels.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("left", "right"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(COUNT):
            picture(kind, number).save(tmp_path / "pictures" / kind / f"{number}.png")
    (tmp_path / "home").mkdir()
    write(tmp_path, paths())
    return tmp_path


def paths() -> list[tuple[Any, str]]:
    return [(f"pictures/{kind}/{number}.png", kind) for number in reversed(range(COUNT)) for kind in ("right", "left")]


def write(folder: Path, rows: list[tuple[Any, str]]) -> None:
    """Answers to images in an order of their own."""
    right = [SURE if kind == "right" else 1 - SURE for _, kind in rows]
    table = {"image": [image for image, _ in rows], "RIGHT": right, "left": [1 - p for p in right]}
    pq.write_table(pa.table(table), folder / "answers.parquet")


def ladder_of(stage: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **teacher: Any) -> Ladder:
    shape = {"family": "vit", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32, "patch_size": 4}
    training = {"steps": 40, "batch_size": 16, "learning_rate": 3e-3, "precision": "fp32", "validate_every": 40, "checkpoint_every": 40}
    answers = {"source": "answers", "path": "answers.parquet", "classes": ["RIGHT", "left"], "parameters": 10**6}
    pictures = {"source": "files", "paths": ["pictures"], "valid_fraction": 0.2, "test_fraction": 0.2}
    return Ladder.model_validate(
        {
            "name": "tiny",
            "workload": "image-classification",
            "data": data or pictures,
            "teacher": answers | teacher,
            "compute": {"at_once": None},  # no test waits for another training of this machine
            "evaluation": {"examples": 64},
            "stages": [{"name": "small", "student": {"shape": shape}, "training": training, **(stage or {})}],
        }
    )


def inputs_of(ladder: Ladder, folder: Path) -> StageInputs:
    context = Context(run="run-1", ladder="tiny", home=str(folder / "home"), base=str(folder))
    return StageInputs(ladder, prepare_data(ladder, context), context)


def root_of(ladder: Ladder, folder: Path) -> StageRecord:
    inputs = inputs_of(ladder, folder)
    return accept_teacher(evaluate_model(prepare_teacher(inputs), [], inputs, "fp32"), inputs)


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare_teacher(inputs_of(ladder_of(**settings), folder))
    return str(caught.value)


@pytest.mark.parametrize("source", ["live", "cached"])
def test_they_teach_and_are_evaluated_and_audited_as_a_model(folder: Path, source: str) -> None:
    ladder = ladder_of({"objective": {"alpha": 1.0}, "signals": {"source": source}})
    inputs = inputs_of(ladder, folder)
    check_ladder(ladder, inputs.context, inputs.data.corpus())
    root = root_of(ladder, folder)
    assert root.metrics["accuracy"] == 1
    assert root.metrics["nll"] == pytest.approx(-np.log(SURE), abs=1e-5)
    student = evaluate_model(train_student(ladder.stages[0], [root], inputs), [root], inputs, "fp32")
    assert student.metrics["accuracy"] > 0.95
    assert student.metrics["kl_root"] < 0.1  # as sure as the answers, and no surer: the labels have no weight
    audited = audit_model(student, ladder.stages[0], [root], inputs, None)
    assert isinstance(audited, StageRecord)
    assert audited.audit is not None
    assert prepare_teacher(inputs).reused
    assert make_plan(ladder, folder, Home(folder / "home")).teacher.action == "reuse"


def test_bytes_in_any_lossless_format_are_the_same_images(folder: Path) -> None:
    rows = []
    for number in range(COUNT):
        for kind in ("left", "right"):
            file = io.BytesIO()
            picture(kind, number).save(file, "BMP")
            rows.append(({"bytes": file.getvalue(), "path": None} if number % 2 else {"bytes": file.getvalue(), "path": "gone.bmp"}, kind))
    write(folder, rows)
    assert root_of(ladder_of(), folder).metrics["accuracy"] == 1


def test_images_are_brought_to_size_as_the_data(folder: Path) -> None:
    data = {"source": "files", "paths": ["pictures"], "resize": {"size": [4, 4]}, "valid_fraction": 0.2, "test_fraction": 0.2}
    assert root_of(ladder_of(data=data), folder).metrics["accuracy"] == 1


def test_images_without_an_answer_are_counted_and_the_first_is_named(folder: Path) -> None:
    write(folder, [row for row in paths() if row[0] not in ("pictures/left/7.png", "pictures/right/3.png")])
    message = refused(folder)
    assert "without an answer to 2 of 80 documents" in message
    assert re.search(r"The first without one is image \d+ of (train|valid|test), of the class (left|RIGHT)\. Images must be", message)


def test_an_image_of_other_content_under_the_same_path_is_another(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    assert not prepare_teacher(inputs).reused
    picture("left", 99).save(folder / "pictures" / "left" / "7.png")
    with pytest.raises(UserError, match=r"to 1 of 80 documents.*of the class left"):
        prepare_teacher(inputs)


def test_a_student_larger_than_the_model_that_answered_is_refused_before_anything_runs(folder: Path) -> None:
    with pytest.raises(UserError, match=r"stages\[0\]\.student\.shape: got 'small with 3,\d+ parameters'; allowed: at most the 650"):
        make_plan(ladder_of(parameters=650), folder, Home(folder / "home"))


def test_paths_without_a_file_and_rows_without_an_image(folder: Path) -> None:
    write(folder, [*paths(), ("pictures/left/gone.png", "left")])
    assert "got 'pictures/left/gone.png'; allowed: readable images. answers.parquet, row 81 names it, and there is no" in refused(folder)
    write(folder, [*paths(), (None, "left")])
    assert "answers.parquet, row 81" in refused(folder)
    assert "without the columns picture'; allowed: columns: image, RIGHT, left" in refused(folder, image="picture")


def test_digits_are_matched_by_their_numbers(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    (tmp_path / "home").mkdir()
    names = [str(number) for number in range(10)]
    p = np.full((len(digits.target), 10), 0.01)
    p[np.arange(len(p)), digits.target] = 0.91
    table = {"image": list(digits.data), **{name: p[:, int(name)] for name in names}}
    pq.write_table(pa.table(table), tmp_path / "answers.parquet")
    ladder = ladder_of(data={"source": "digits", "valid_fraction": 0.2, "test_fraction": 0.1}, classes=names)
    assert root_of(ladder, tmp_path).metrics["accuracy"] == 1
    table["image"][4] = table["image"][4][:60]
    pq.write_table(pa.table(table), tmp_path / "answers.parquet")
    with pytest.raises(UserError, match=r"row 5'; allowed: 64 numbers from 0 to 16"):
        prepare_teacher(inputs_of(ladder, tmp_path))
