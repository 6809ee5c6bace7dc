"""Labels of rows: missing ones, values that stand for none, names of classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema.data import DatasetData, FilesData
from conf.schema.tables import Columns
from tasks.data.reading.sources import read_source
from tests.tasks.data.builders import WRITERS, files, save_dataset, write_csv, write_jsonl


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": [1]}])
    with pytest.raises(UserError, match=r"data\.columns\.label.*rows\.jsonl:1 holds \[1\]"):
        read_source(files("rows.jsonl"), "sequence-classification", tmp_path)


GAPS = [
    {"text": "a", "label": "0"},
    {"text": "", "label": "1"},
    {"text": "b", "label": " "},
    {"text": "c", "label": "-100"},
    {"text": "d", "label": "1"},
]


@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_without_text_or_label_are_left_out_where_asked(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"gaps{suffix}", GAPS)
    wanted = files(f"gaps{suffix}").model_copy(update={"missing": "drop", "unlabelled": ("-100",)})
    source = read_source(wanted, "sequence-classification", tmp_path)
    assert [(d.text, d.label) for d in source.documents] == [("a", "0"), ("d", "1")]
    assert source.dropped == {"text": 1, "label": 2}
    kept = wanted.model_copy(update={"unlabelled": ()})
    assert [d.label for d in read_source(kept, "sequence-classification", tmp_path).documents] == ["0", "-100", "1"]
    with pytest.raises(UserError, match=r"data\.columns\.text.*holds ''.*data\.missing=drop"):
        read_source(files(f"gaps{suffix}"), "sequence-classification", tmp_path)


def test_values_that_stand_for_no_label_make_rows_unlabelled(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": label} for label in (0, -100, -100.0, "-100.0", "NaN", None, 1)])
    data = FilesData.model_validate({"paths": ["rows.jsonl"], "unlabelled": [-100, float("nan")]})
    documents = read_source(data, "sequence-classification", tmp_path).documents
    assert [d.label for d in documents] == [0, None, None, None, None, None, 1]


def test_slices_of_classes_have_their_names(tmp_path: Path) -> None:
    import datasets

    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    save_dataset(tmp_path / "saved", {"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    data = DatasetData(name="saved", columns=Columns(slice="label"))
    assert [d.slice for d in read_source(data, "sequence-classification", tmp_path).documents] == ["pos", "neg", "unlabelled"]
    write_csv(tmp_path / "rows.csv", [{"text": "a", "label": " 10.0"}, {"text": "b", "label": "good "}])
    documents = read_source(files("rows.csv", slice="label"), "sequence-classification", tmp_path).documents
    assert [d.slice for d in documents] == ["10", "good"]


def test_objects_without_the_key_of_the_label_have_none_where_others_have_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [{"text": "a"}, {"text": "b", "label": 1}])
    found = read_source(files("r.jsonl"), "sequence-classification", tmp_path).documents
    assert [document.label for document in found] == [None, 1]
    write_jsonl(tmp_path / "r.jsonl", [{"text": "a", "lable": 1}, {"text": "b", "lable": 1}])
    with pytest.raises(UserError, match=r"data\.columns\.label: got 'label'; .* Did you mean 'lable'"):
        read_source(files("r.jsonl"), "sequence-classification", tmp_path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_without_labels_beside_one_with_them_is_unlabelled(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"a{suffix}", [{"text": "a"}, {"text": "b"}])
    WRITERS[suffix](tmp_path / f"b{suffix}", [{"text": "c", "label": "good"}])
    found = read_source(files(f"*{suffix}"), "sequence-classification", tmp_path).documents
    assert [(document.text, document.label) for document in found] == [("a", None), ("b", None), ("c", "good")]
    WRITERS[suffix](tmp_path / f"b{suffix}", [{"text": "c"}])
    with pytest.raises(UserError, match=rf"data\.columns\.label: got 'label'; allowed: the columns of a{suffix}.*: text\."):
        read_source(files(f"*{suffix}"), "sequence-classification", tmp_path)
    WRITERS[suffix](tmp_path / f"b{suffix}", [{"text": "c", "label": "good"}])
    WRITERS[suffix](tmp_path / f"a{suffix}", [{"text": "a", "labels": "bad"}])
    with pytest.raises(UserError, match=rf"the columns of a{suffix}.*Did you mean 'labels'"):
        read_source(files(f"*{suffix}"), "sequence-classification", tmp_path)
