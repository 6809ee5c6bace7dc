"""Saved datasets and those of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema.data import DatasetData
from conf.schema.tables import Columns
from tasks.data.reading.sources import read_source, source_hash
from tests.tasks.data.builders import save_dataset, texts


def test_a_saved_dataset_is_read_with_the_names_of_its_classes(tmp_path: Path) -> None:
    import datasets

    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    save_dataset(tmp_path / "saved", {"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    source = read_source(DatasetData(name="saved"), "sequence-classification", tmp_path)
    assert source.class_names == ("neg", "pos")
    assert [(d.text, d.label) for d in source.documents] == [("a", 1), ("b", 0), ("c", None)]
    assert read_source(DatasetData(name="saved"), "causal-lm", tmp_path).class_names is None


def test_a_split_of_a_saved_dataset_dict_is_chosen(tmp_path: Path) -> None:
    save_dataset(tmp_path / "saved", {"text": ["a", "b"]}, split="validation")
    assert texts(read_source(DatasetData(name="saved", split="validation"), "causal-lm", tmp_path).documents) == ["a", "b"]
    with pytest.raises(UserError, match=r"data\.split: got 'validaton'; .*validation.*Did you mean 'validation'"):
        read_source(DatasetData(name="saved", split="validaton"), "causal-lm", tmp_path)
    with pytest.raises(UserError, match=r"data\.columns\.text: got 'body'.*Name the column"):
        read_source(DatasetData(name="saved", split="validation", columns=Columns(text="body")), "causal-lm", tmp_path)


def test_a_folder_that_is_no_saved_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for name in ("plain", "./missing", str(tmp_path / "missing")):
        with pytest.raises(UserError, match=r"data\.name.*save_to_disk"):
            source_hash(DatasetData(name=name), tmp_path)


def test_a_damaged_saved_dataset_is_refused(tmp_path: Path) -> None:
    save_dataset(tmp_path / "saved", {"text": ["a"]})
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"data\.name.*datasets says"):
        read_source(DatasetData(name="saved"), "causal-lm", tmp_path)
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"data\.name.*datasets says"):
        read_source(DatasetData(name="saved"), "causal-lm", tmp_path)


def test_an_unreachable_hub_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for ask in (lambda data: read_source(data, "causal-lm", tmp_path), lambda data: source_hash(data, tmp_path)):
        with pytest.raises(UserError, match=r"data\.name: got 'someone/something'.*HF_HUB_OFFLINE.*datasets says"):
            ask(DatasetData(name="someone/something"))


def test_the_hash_of_a_saved_dataset_follows_its_files(tmp_path: Path) -> None:
    save_dataset(tmp_path / "one", {"text": ["a"]})
    save_dataset(tmp_path / "two", {"text": ["b"]})
    first = source_hash(DatasetData(name="one"), tmp_path)
    assert first == source_hash(DatasetData(name="./one"), tmp_path / "two" / "..")
    assert first != source_hash(DatasetData(name="two"), tmp_path)
