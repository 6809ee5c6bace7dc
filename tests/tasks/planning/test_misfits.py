"""Damaged weights and mistaken labels are named by a plan, before anything is computed."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from conf.errors import UserError
from conf.home import Home
from conf.schema.data import FilesData
from conf.schema.ladder import Ladder
from models.architectures.checkpoint import check_finite
from models.base.files import weight_files
from tasks.data.reading import label_look
from tasks.planning import misfits
from tasks.planning.plan import LadderPlan, make_plan

NARROW = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TENSOR = "bert.encoder.layer.0.intermediate.dense.weight"  # (16, 16)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    names = {0: "bad", 1: "good"}
    BertForSequenceClassification(BertConfig(**NARROW, vocab_size=258, id2label=names)).save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def spoil(folder: Path, place: tuple[int, int]) -> None:
    """Make one number of a tensor NaN."""
    (file,) = weight_files(folder)
    tensors = load_file(file)
    tensors[TENSOR][place] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})


def plan(folder: Path, labels: list[Any], student: dict[str, Any] | None = None, **data: Any) -> LadderPlan:
    """The plan of a ladder below the teacher, whose data have these labels."""
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([f"row {number}", label] for number, label in enumerate(labels))])
    shape = {"family": "bert", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 16}
    settings = {"source": "files", "paths": ["rows.csv"], "sequence_length": 16, "valid_fraction": 0.2, "test_fraction": 0.2, **data}
    training = {"steps": 2, "precision": "fp32"}
    ladder = {
        "name": "tiny",
        "workload": "sequence-classification",
        "data": settings,
        "teacher": {"source": "checkpoint", "path": "teacher"},
        "stages": [{"name": "small", "student": student or {"shape": shape}, "training": training}],
    }
    return make_plan(Ladder.model_validate(ladder), folder, Home(folder / "home"))


RIGHT = ["good", "bad"] * 20


def test_right_weights_and_labels_are_planned(tmp_path: Path, teacher: Path) -> None:
    assert not [note for note in plan(tmp_path, RIGHT).notes if "looked" in note]


def test_nan_in_the_weights_of_a_teacher_or_a_student(tmp_path: Path, teacher: Path) -> None:
    (tmp_path / "student").mkdir()
    for file in teacher.iterdir():
        (tmp_path / "student" / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path / "student", (3, 4))
    found = rf"model\.safetensors, whose tensor {TENSOR} holds 1 of 256 numbers that are NaN"
    with pytest.raises(UserError, match=r"stages\[0\]\.student\.path: got .*student/" + found):
        plan(tmp_path, RIGHT, {"source": "checkpoint", "path": "./student"})
    spoil(teacher, (3, 4))
    with pytest.raises(UserError, match=r"teacher\.path: got .*teacher/" + found):
        plan(tmp_path, RIGHT)


def test_large_weights_are_looked_at_in_part_which_is_said(tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = weight_files(teacher)[0].stat().st_size
    assert check_finite(teacher) == 1
    assert check_finite(teacher, most=size // 2) == pytest.approx(0.5, abs=1e-4)
    spoil(teacher, (12, 0))
    monkeypatch.setattr(misfits, "WEIGHT_BYTES", size // 2)
    notes = plan(tmp_path, RIGHT).notes
    assert "teacher.path: looked for NaN in the first 50.0 % of every tensor; the run looks at all" in notes
    spoil(teacher, (7, 0))
    with pytest.raises(UserError, match=r"holds 1 of the first 128 numbers that are NaN"):
        plan(tmp_path, RIGHT)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([f"{number}.5" for number in range(40)], "a column of fractions, 40 different ones from 0.5 to 39.5 in 40 rows"),
        ([f"user-{number}" for number in range(40)], "40 different labels in 40 rows"),
        (
            ["positive", "negative"] * 20,
            "classes bad, good'; allowed: names, or places from 0 on, of the labels in the data: negative, positive",
        ),
        (["good", "bad", "nan", "good"] * 10, "10 of 40 rows with the label nan"),
        (["good"] * 40, "only the class 'good'"),
    ],
)
def test_mistaken_labels_and_classes_of_another_teacher(tmp_path: Path, teacher: Path, labels: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(tmp_path, labels)
    assert message in str(caught.value)


def test_of_many_rows_the_first_are_looked_at_and_what_others_may_mend_is_no_mistake(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_look, "ROWS", 20)
    assert "labels: looked at the first 20 rows; the run looks at all" in plan(tmp_path, ["good"] * 20 + ["bad"] * 20).notes
    with pytest.raises(UserError, match=r"of the labels in the data: fine"):
        plan(tmp_path, ["fine"] * 20 + RIGHT)
    with pytest.raises(UserError, match="a column of fractions, 20 different ones"):
        plan(tmp_path, [f"{number}.5" for number in range(40)])


def test_a_compressed_file_is_named(tmp_path: Path, teacher: Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"text,label\na,good\n"))
    with pytest.raises(UserError, match=r"rows\.csv\.gz'.*it is compressed: gunzip it"):
        plan(tmp_path, RIGHT, paths=["rows.csv.gz"])


def test_a_head_of_other_sizes_and_a_head_inside_another_module(tmp_path: Path, teacher: Path) -> None:
    file, config = weight_files(teacher)[0], teacher / "config.json"
    whole, right = load_file(file), config.read_text()
    config.write_text(json.dumps(json.loads(right) | {"id2label": {"0": "bad", "1": "good", "2": "odd"}}))
    with pytest.raises(UserError, match=r"whose tensor classifier\.\w+ is 2.*; allowed: 3.*, as its config\.json says"):
        plan(tmp_path, RIGHT)
    config.write_text(right)
    save_file({f"net.{name}": each for name, each in whole.items()}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"which has net\.classifier\.weight'; allowed: a checkpoint with classifier\.weight in its place"):
        plan(tmp_path, RIGHT)


def test_folders_of_pictures_are_classes_without_a_picture_opened(tmp_path: Path) -> None:
    for name in ("bad", "fine"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.png").write_bytes(b"no picture")
    data = FilesData.model_validate({"source": "files", "paths": ["pictures"]})
    look = label_look.look_at_labels(data, "image-classification", tmp_path)
    assert look is not None
    assert (dict(look.tally.counts), look.whole) == ({"bad": 1, "fine": 1}, True)
