"""Rows of `data.transfer`: they train, are never held out, leave the split as it is, and are counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.loading.path_policy import confine
from models.data.corpus import SPLITS
from tasks.data.identity import corpus_identity
from tasks.records.data import DataCounts
from tests.tasks.data.builders import build, decode, ladder, rows, save_dataset

KIND = "sequence-classification"


def more(folder: Path, count: int = 12, label: Any = lambda n: n % 2 if n % 3 else None, **settings: Any) -> dict[str, Any]:
    """Settings of 60 rows, and of further ones that train alone, of which every third has no label."""
    base = rows(folder / "base.jsonl", 60) | {"columns": {}, "sequence_length": 64}
    lines = [{"text": f"later {n}", "label": label(n)} for n in range(count)]
    (folder / "later.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return base | {"transfer": [{"paths": ["later.jsonl"], **settings}]}


def texts(settings: dict[str, Any], folder: Path, workload: str = KIND) -> tuple[dict[str, Counter[str]], DataCounts, list[str]]:
    corpus, info, told = build(ladder(workload, settings), folder)
    found = {name: Counter(decode(corpus, name, i) for i in range(info.documents[name])) for name in SPLITS}
    return found, DataCounts.model_validate_json((corpus.folder / "counts.json").read_bytes()), told


def test_transfer_rows_train_and_the_split_stays_as_it_is(tmp_path: Path) -> None:
    (without := tmp_path / "without").mkdir()
    base = more(tmp_path)
    before, _, _ = texts(base | {"transfer": []} | {"paths": [str(tmp_path / "base.jsonl")]}, without)
    after, counts, told = texts(base, tmp_path)
    assert (after["valid"], after["test"]) == (before["valid"], before["test"])
    assert after["train"] - before["train"] == Counter(f"later {n}" for n in range(12))
    assert (counts.transfer, counts.unlabelled) == (12, 4)
    assert f"weight 1, files, data.transfer[0]: {len(after['train'])} training documents are read" in " ".join(told)


def test_a_weight_repeats_them(tmp_path: Path) -> None:
    found, _, _ = texts(more(tmp_path, weight=3.0), tmp_path)
    assert {count for text, count in found["train"].items() if text.startswith("later")} == {3}
    assert {count for text, count in found["train"].items() if not text.startswith("later")} == {1}


def test_a_row_that_a_held_out_one_equals_is_left_out_labelled_or_not(tmp_path: Path) -> None:
    settings = more(tmp_path, 0)
    (tmp_path / "later.jsonl").write_text((tmp_path / "base.jsonl").read_text())
    found, counts, told = texts(settings, tmp_path)
    held_out = sum(len(found[name]) for name in ("valid", "test"))
    assert counts.transfer == 60 - held_out
    assert f"{held_out} rows of data.transfer left out, which held-out rows equal" in told
    assert not set(found["train"]) & (set(found["valid"]) | set(found["test"]))


def test_limits_draw_from_the_others_alone(tmp_path: Path) -> None:
    found, counts, _ = texts(more(tmp_path) | {"max_documents": 30, "max_train_documents": 5}, tmp_path)
    assert sum(not text.startswith("later") for text in found["train"]) == 5
    assert counts.transfer == 12


def test_their_content_and_weight_are_identity_and_their_place_is_not(tmp_path: Path) -> None:
    settings = more(tmp_path)

    def identity(**changes: Any) -> dict[str, Any]:
        made = settings | {"transfer": [settings["transfer"][0] | changes]}
        return corpus_identity(ladder(KIND, made), tmp_path, None)

    before = identity()
    (tmp_path / "moved.jsonl").write_bytes((tmp_path / "later.jsonl").read_bytes())
    assert identity(paths=["moved.jsonl"]) == before
    assert identity(weight=2.0) != before
    assert identity(columns={"label": "text"}) != before
    plain = corpus_identity(ladder(KIND, settings | {"transfer": []}), tmp_path, None)
    assert "transfer" not in plain["data"], "a setting that came later changes no identity at its default"
    (tmp_path / "later.jsonl").write_text('{"text": "other", "label": 1}\n')
    assert identity() != before
    assert corpus_identity(ladder(KIND, settings | {"transfer": []}), tmp_path, None) == plain


@pytest.mark.parametrize("source", ["files", "python-stdlib"])
def test_language_models_read_them_after_the_others(tmp_path: Path, source: str) -> None:
    (tmp_path / "later.jsonl").write_text('{"text": "later one"}\n{"text": "later two"}\n')
    base = {"source": source, "max_documents": 12, "transfer": [{"paths": ["later.jsonl"]}]}
    if source == "files":
        base |= {"paths": ["base.jsonl"]}
        rows(tmp_path / "base.jsonl", 60)
    corpus, info, _ = build(ladder("causal-lm", base), tmp_path)
    last = [decode(corpus, "train", info.documents["train"] - 2 + place) for place in range(2)]
    assert last == ["later one", "later two"]


def test_labels_of_a_dataset_with_declared_classes_are_names_or_numbers(tmp_path: Path) -> None:
    import datasets

    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    save_dataset(tmp_path / "saved", {"text": [f"row {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}, kinds)
    (tmp_path / "later.jsonl").write_text('{"text": "later a", "label": "yes"}\n{"text": "later b", "label": null}\n')
    settings = {"source": "dataset", "name": str(tmp_path / "saved"), "transfer": [{"paths": ["later.jsonl"]}]}
    corpus, info, _ = build(ladder(KIND, settings), tmp_path)
    assert info.label_names == ("no", "yes")
    assert corpus.split("train").labels[-2:].tolist() == [1, -1]


def test_misfits_name_their_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.transfer\[0\]\.paths\[0\]: got 'gone\.jsonl'; allowed: a file"):
        build(ladder(KIND, more(tmp_path) | {"transfer": [{"paths": ["gone.jsonl"]}]}), tmp_path)
    with pytest.raises(ValueError, match=r"data\.transfer: got some; allowed: none, for data\.source digits"):
        ladder("image-classification", {"source": "digits", "transfer": [{"paths": ["a.jsonl"]}]})
    made = ladder(KIND, more(tmp_path))
    with pytest.raises(UserError, match=r"data\.transfer\[0\]\.paths\[0\]: .*allowed: a path inside the allowed folders"):
        confine("a.yaml", made, tmp_path, [tmp_path / "elsewhere"])
