"""Given splits: files, splits of a dataset, a column; documents that stand in two of them are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.schema.data import DatasetData, FilesData
from conf.schema.ladder import Workload
from models.data.corpus import SPLITS
from tasks.data.build import build_corpus
from tasks.data.duplicates import conflicting, count_duplicates, shared
from tasks.data.identity import corpus_identity
from tasks.data.reading.sources import read_source, source_hash
from tests.tasks.data.builders import build, ladder, write_csv, write_jsonl

KIND: Workload = "sequence-classification"


def write_parts(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Three files; one text of test and one of valid stand in train too."""
    parts = {
        name: [{"text": f"{name} {n}", "label": "ab"[n % 2]} for n in range(count)] for name, count in zip(SPLITS, (20, 6, 4), strict=True)
    }
    parts["test"][0]["text"] = parts["valid"][1]["text"] = "train 3"
    for name, rows in parts.items():
        write_csv(folder / f"{name}.csv", rows)
    return parts


def test_files_are_the_splits_that_they_are_given_as(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    data = {"source": "files", "splits": {name: f"{name}.csv" for name in SPLITS}, "sequence_length": 16}
    documents = read_source(FilesData.model_validate(data), KIND, tmp_path).documents
    assert [(d.split, d.text) for d in documents] == [(name, row["text"]) for name in SPLITS for row in parts[name]]
    _, info, told = build(ladder(KIND, data), tmp_path)
    assert info.documents == {"train": 20, "valid": 6, "test": 4}
    assert "1 documents of the given split test (25.0 %) stand in train too; they are kept in both" in told
    assert any("valid (16.7 %) stand in train too" in line for line in told)


def test_a_column_names_the_splits(tmp_path: Path) -> None:
    words = ["train", "Training", "dev", "validation ", "val", "TEST"]
    write_jsonl(tmp_path / "rows.jsonl", [{"text": f"t{n}", "label": n, "part": word} for n, word in enumerate(words)])
    data = FilesData.model_validate({"paths": ["rows.jsonl"], "splits": {"column": "part"}})
    found = [d.split for d in read_source(data, KIND, tmp_path).documents]
    assert found == ["train", "train", "valid", "valid", "valid", "test"]
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "t", "label": 0, "part": "holdout"}])
    with pytest.raises(
        UserError, match=r"data\.splits\.column: got 'part'; allowed: .*train, training, valid.*rows\.jsonl:1 holds 'holdout'"
    ):
        read_source(data, KIND, tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "t", "label": 0, "prt": "train"}])
    with pytest.raises(UserError, match=r"data\.splits\.column: got 'part'.*Did you mean 'prt'"):
        read_source(data, KIND, tmp_path)


def test_splits_of_a_dataset_are_named(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    parts = {name: {"text": [f"{name}{n}" for n in range(3)], "label": [0, 1, 0]} for name in ("train", "extra", "held_out")}
    saved = [(name, datasets.Dataset.from_dict(columns, features=features)) for name, columns in parts.items()]
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    data = DatasetData.model_validate({"name": "saved", "splits": {"train": ["train", "extra"], "test": "held_out"}})
    documents = read_source(data, KIND, tmp_path).documents
    assert [(d.split, d.text) for d in documents] == [
        ("train", t) for t in ("train0", "train1", "train2", "extra0", "extra1", "extra2")
    ] + [("test", t) for t in ("held_out0", "held_out1", "held_out2")]
    wrong = DatasetData.model_validate({"name": "saved", "splits": {"train": "train", "test": "tset"}})
    with pytest.raises(UserError, match=r"data\.splits: got 'tset'; allowed: the splits of saved: train, extra, held_out"):
        read_source(wrong, KIND, tmp_path)


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path)
    data = FilesData.model_validate({"splits": {"train": "*.csv", "test": "test.csv"}})
    for ask in (lambda: read_source(data, KIND, tmp_path), lambda: source_hash(data, tmp_path)):
        with pytest.raises(
            UserError, match=r"data\.splits\.test\[0\]: got 'test\.csv'.*files that are not in train too.*test\.csv is in both"
        ):
            ask()


def test_the_identity_follows_which_file_is_which_split(tmp_path: Path) -> None:
    write_parts(tmp_path)
    write_csv(tmp_path / "copy.csv", [{"text": "a", "label": 1}])

    def identity(**data: Any) -> dict[str, Any]:
        return corpus_identity(ladder(KIND, {"source": "files", **data}), tmp_path, None)

    given = identity(splits={"train": "train.csv", "test": "test.csv"})
    assert "splits" not in given["data"], "the hash of the source says it"
    assert given == identity(splits={"train": ["train.csv"], "test": "test.csv"})
    assert given != identity(paths=["train.csv", "test.csv"])
    assert given != identity(splits={"train": "test.csv", "test": "train.csv"})
    assert given != identity(splits={"train": "train.csv", "valid": "test.csv"})
    by_column = identity(paths=["train.csv"], splits={"column": "label"})
    assert by_column["data"]["splits"]["column"] == "label"
    assert by_column != identity(paths=["train.csv"])


def test_missing_splits_are_drawn_from_train(tmp_path: Path) -> None:
    write_parts(tmp_path)
    data = {"source": "files", "splits": {"train": ["train.csv", "valid.csv"], "test": "test.csv"}, "valid_fraction": 0.3}
    (tmp_path / "out").mkdir()
    info = build_corpus(ladder(KIND, data), tmp_path, None, tmp_path / "out", lambda _: None)
    assert info.documents["test"] == 4
    assert info.documents["train"] + info.documents["valid"] == 26
    assert info.documents["valid"] >= 1


def test_contents_with_several_labels_are_counted() -> None:
    contents = np.array([7, 7, 8, 9, 9, 9, 5, 5, 6], dtype=np.uint64)
    labels = np.array([0, 1, 0, 2, 2, 1, 3, 3, -1])
    assert conflicting(contents, labels) == (2, 5)
    assert conflicting(contents[:0], labels[:0]) == (0, 0)
    assert conflicting(np.array([7, 7], dtype=np.uint64), np.array([0, -1])) == (0, 0), "a row without label contradicts nothing"
    counts = count_duplicates(contents, labels, np.zeros(9, dtype=np.uint8), False, {"text": 2}, ["first"])
    assert (counts.conflicting, counts.shared, counts.dropped) == (5, {}, {"text": 2})
    assert counts.notes == ("first", "5 documents have one of 2 contents that bear different labels: no model can be right about all")


def test_contents_in_several_splits_are_counted() -> None:
    contents = np.array([1, 2, 3, 2, 2, 4, 1, 4, 9], dtype=np.uint64)
    splits = np.array([0, 0, 0, 1, 1, 1, 2, 2, 255], dtype=np.uint8)
    assert shared(contents, splits) == {("valid", "train"): 2, ("test", "train"): 1, ("test", "valid"): 1}
    assert shared(contents[:3], splits[:3]) == {}


def test_rows_without_label_of_given_held_out_splits_train_nothing(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 2 if n % 4 else None, "part": ("train", "test")[n > 19]} for n in range(32)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"source": "files", "paths": ["rows.jsonl"], "splits": {"column": "part"}, "sequence_length": 16}
    _, info, told = build(ladder(KIND, data), tmp_path)
    assert info.documents["test"] == 9
    assert info.documents["train"] + info.documents["valid"] == 20
    assert "3 rows without label of given held-out splits left out" in told
    write_jsonl(tmp_path / "rows.jsonl", [row | ({"label": None} if row["part"] == "test" else {}) for row in rows])
    with pytest.raises(UserError, match=r"data\.splits\.test: got 'a split without labels'.*rows\.jsonl:21 is one of them"):
        build_corpus(ladder(KIND, data), tmp_path, None, tmp_path, lambda _: None)


def test_a_given_split_without_documents_is_refused_and_not_drawn(tmp_path: Path) -> None:
    write_parts(tmp_path)
    (tmp_path / "valid.csv").write_text("text,label\n")
    data = {"source": "files", "splits": {name: f"{name}.csv" for name in SPLITS}, "sequence_length": 16}
    with pytest.raises(UserError, match=r"data\.splits\.valid: got 'valid\.csv'; allowed: a split with documents\. It holds none"):
        build(ladder(KIND, data), tmp_path)


def test_a_training_part_without_any_label_stands_beside_given_ones(tmp_path: Path) -> None:
    write_parts(tmp_path)
    write_csv(tmp_path / "train.csv", [{"text": f"new {n}", "label": ""} for n in range(9)])
    data = {"source": "files", "splits": {name: f"{name}.csv" for name in SPLITS}, "sequence_length": 16}
    corpus, info, _ = build(ladder(KIND, data), tmp_path)
    assert info.documents == {"train": 9, "valid": 6, "test": 4}
    assert (corpus.split("train").labels == -1).all()
