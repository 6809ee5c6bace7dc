"""Label columns as programs and people write them, from the file to the prepared corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.schema.ladder import Ladder
from models.data.corpus import SPLITS, Corpus, CorpusInfo
from tasks.data.build import build_corpus
from tasks.records.data import COUNTS, DataCounts

SHAPE = {"family": "bert", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8}


def prepare(folder: Path, labels: list[str], texts: list[str] | None = None, **data: Any) -> tuple[Corpus, CorpusInfo, DataCounts]:
    """The corpus of a CSV file with these labels, and what is counted beside it."""
    texts = texts or [f"text number {number}" for number in range(len(labels))]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True)))
    plain = {
        "name": "labels",
        "workload": "sequence-classification",
        "data": {"source": "files", "paths": ["rows.csv"], "sequence_length": 32, "valid_fraction": 0.2, "test_fraction": 0.1, **data},
        "teacher": {"source": "train", "shape": SHAPE, "training": {"steps": 1}},
        "stages": [{"name": "small", "student": {"shape": SHAPE}, "training": {"steps": 1}}],
    }
    out = folder / "corpus"
    out.mkdir()
    info = build_corpus(Ladder.model_validate(plain), folder, None, out, lambda _: None)
    return Corpus(out, "hash"), info, DataCounts.model_validate_json((out / COUNTS).read_text())


def classes_by_text(corpus: Corpus, info: CorpusInfo) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in SPLITS:
        split = corpus.split(name)
        for index in range(len(split)):
            ids = split.values[split.offsets[index] : split.offsets[index + 1]]
            found[bytes(number for number in ids.tolist() if number < 256).decode()] = info.label_names[split.labels[index]]
    return found


@pytest.mark.parametrize("classes", [None, 11])
def test_numbers_that_pandas_wrote_with_a_point_are_the_classes_in_their_order(tmp_path: Path, classes: int | None) -> None:
    corpus, info, _ = prepare(tmp_path, [f"{number % 11}.0" for number in range(44)], classes=classes)
    assert info.label_names == tuple(map(str, range(11))), "a teacher's output 2 is class 2, not class 10"
    assert classes_by_text(corpus, info) == {f"text number {number}": str(number % 11) for number in range(44)}


def test_space_around_a_label_makes_no_class(tmp_path: Path) -> None:
    _, info, counts = prepare(tmp_path, ["positive", "positive ", "negative", "Negative"] * 10)
    assert info.label_names == ("Negative", "negative", "positive")
    assert counts.notes == (
        "labels: Negative (10 documents) and negative (10 documents) differ in case alone, and are taken as different classes",
    )


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["0", "1", "-100"], "13 of 40 rows with the label -100"),
        (["0", "1", "nan"], "13 of 40 rows with the label nan"),
        (["01", "02", "10"], "2 of 3 labels padded with zeros"),
        (["0.37", "0.82", "1.0"], "a column of fractions, 3 different ones from 0.37 to 1"),
        ([f"id{number}" for number in range(40)], "40 different labels in 40 rows"),
    ],
)
def test_what_is_likely_no_class_is_asked_back(tmp_path: Path, labels: list[str], found: str) -> None:
    with pytest.raises(UserError) as refused:
        prepare(tmp_path, [labels[number % len(labels)] for number in range(40)])
    assert str(refused.value).startswith(f"data.columns.label: got '{found}")
    assert "rows.csv" in str(refused.value) or "data.classes=" in str(refused.value)


def test_rows_marked_as_unlabelled_are_taught_by_the_teacher_or_left_out(tmp_path: Path) -> None:
    for missing, labelled, unlabelled in (("error", 20, 13), ("drop", 20, 0)):
        (tmp_path / missing).mkdir()
        _, info, counts = prepare(tmp_path / missing, [("0", "1", "-100")[n % 3] for n in range(40)], unlabelled=[-100], missing=missing)
        assert info.label_names == ("0", "1")
        assert sum(info.documents.values()) == (40 if missing == "error" else 27)
        assert counts.dropped == ({"label": 13} if missing == "drop" else {})
        assert counts.labelled is not None
        assert abs(counts.labelled - labelled) <= 2
        assert counts.unlabelled == unlabelled


def test_a_class_called_minus_100_is_usable_under_another_name_as_both_messages_say(tmp_path: Path) -> None:
    labels = [("0", "1", "-100")[n % 3] for n in range(40)]
    for name in ("plain", "counted", "renamed"):
        (tmp_path / name).mkdir()
    for name, settings in {"plain": {}, "counted": {"classes": 3}}.items():
        with pytest.raises(UserError, match=r"data\.unlabelled=\['-100'\].*give it a name in the data, such as minus-100"):
            prepare(tmp_path / name, labels, **settings)
    corpus, info, counts = prepare(tmp_path / "renamed", [label.replace("-100", "minus-100") for label in labels])
    assert info.label_names == ("0", "1", "minus-100")
    assert counts.unlabelled == 0
    assert set(np.unique(corpus.split("train").labels)) == {0, 1, 2}


def test_one_text_with_two_labels_is_counted(tmp_path: Path) -> None:
    texts = ["the same text"] * 20 + [f"text number {number}" for number in range(20)]
    _, info, counts = prepare(tmp_path, ["0", "1"] * 20, texts)
    assert sum(info.documents.values()) == 40
    assert counts.conflicting == 20
    assert counts.notes == ("20 documents have one of 1 contents that bear different labels: no model can be right about all",)
