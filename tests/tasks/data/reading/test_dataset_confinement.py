"""Data sets are hub ids or folders that hold all of themselves; nothing in them runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema.data import DatasetData
from tasks.data.reading.sources import read_source, source_hash
from tests.tasks.data.builders import save_dataset


@pytest.mark.parametrize("name", ["json", "text", "csv", "parquet", "arrow", "pandas", "imagefolder", "webdataset", "imdb"])
def test_loaders_of_whatever_lies_there_are_no_datasets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.chdir(tmp_path)
    for read in (lambda data: source_hash(data, tmp_path), lambda data: read_source(data, "causal-lm", tmp_path)):
        with pytest.raises(UserError, match=rf"data\.name: got '{name}'; allowed: a folder written by save_to_disk, or the id owner/name"):
            read(DatasetData(name=name))


def test_a_folder_with_a_loading_script_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for script in ("name.py", "owner.py", "__init__.py"):
        (folder / script).write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    (folder / "rows.jsonl").write_text('{"text": "x"}')
    monkeypatch.chdir(tmp_path)
    for base in (tmp_path, tmp_path / "elsewhere"):  # the library looks into the working directory whatever the base is
        with pytest.raises(UserError, match=r"data\.name: got 'owner/name'; allowed: a folder written by save_to_disk"):
            read_source(DatasetData(name="owner/name"), "causal-lm", base)
    save_dataset(folder, {"text": ["a"]})
    assert [document.text for document in read_source(DatasetData(name="owner/name"), "causal-lm", tmp_path).documents] == ["a"]
    assert not (tmp_path / "trace").exists()


def test_a_saved_dataset_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    save_dataset(tmp_path / "secret", {"text": ["secret"]})
    for name in ("../secret/data-00000-of-00001.arrow", str(tmp_path / "secret" / "data-00000-of-00001.arrow"), ".."):
        save_dataset(tmp_path / "saved", {"text": ["a"]})
        state = json.loads((tmp_path / "saved" / "state.json").read_text())
        (tmp_path / "saved" / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": name}]}))
        with pytest.raises(UserError, match=r"data\.name: .*state\.json that points to "):
            read_source(DatasetData(name="saved"), "causal-lm", tmp_path)
    save_dataset(tmp_path / "parts", {"text": ["a"]}, split="train")
    (tmp_path / "parts" / "dataset_dict.json").write_text('{"splits": ["train", "../secret"]}')
    with pytest.raises(UserError, match=r"dataset_dict\.json that points to \.\./secret"):
        read_source(DatasetData(name="parts"), "causal-lm", tmp_path)
    save_dataset(tmp_path / "linked", {"text": ["a"]})
    (tmp_path / "linked" / "data-00000-of-00001.arrow").unlink()
    (tmp_path / "linked" / "data-00000-of-00001.arrow").symlink_to(tmp_path / "secret" / "data-00000-of-00001.arrow")
    with pytest.raises(UserError, match=r"data-00000-of-00001\.arrow, a link to .*secret"):
        read_source(DatasetData(name="linked"), "causal-lm", tmp_path)


def test_the_hubs_data_are_cached_under_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = {}
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **more: asked.update(more) or datasets.Dataset.from_dict({"text": ["a"]}))
    read_source(DatasetData(name="owner/name"), "causal-lm", tmp_path)
    assert asked["cache_dir"] == str(tmp_path / "home" / "datasets")
    assert "trust_remote_code" not in asked
