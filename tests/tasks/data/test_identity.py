"""The identity of a corpus: what it depends on, and what earlier versions hashed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conf.schema.ladder import Ladder
from tasks.data.identity import corpus_identity
from tests.tasks.data.builders import ladder, rows


def test_identity_is_json_and_names_what_the_corpus_depends_on(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 9)
    made = ladder("causal-lm", data)
    before = corpus_identity(made, tmp_path, None)
    assert json.loads(json.dumps(before)) == before
    assert set(before) == {"workload", "data", "tokenizer", "source", "preparation"}
    assert "paths" not in before["data"]

    def differs(other: Ladder, tokenizer: str | None = None) -> bool:
        return corpus_identity(other, tmp_path, tokenizer) != before

    assert not differs(ladder("causal-lm", data, name="another"))
    assert not differs(ladder("causal-lm", data | {"paths": ["*.jsonl"]}))
    assert not differs(ladder("causal-lm", data, {"kind": "bytes", "vocabulary": 300}))
    assert differs(ladder("causal-lm", data | {"valid_fraction": 0.1}))
    assert differs(ladder("causal-lm", data | {"max_documents": 5}))
    assert differs(ladder("causal-lm", data | {"columns": {"text": "text"}}))
    assert differs(ladder("causal-lm", data, {"kind": "bpe", "vocabulary": 300}))
    assert differs(ladder("sequence-classification", data))
    assert not {"missing", "unlabelled", "splits"} & set(before["data"]), "settings that came later change no identity at their default"
    assert differs(ladder("causal-lm", data | {"missing": "drop"}))
    assert differs(ladder("causal-lm", data | {"unlabelled": ["-100"]}))
    teacher = ladder("causal-lm", data, {"kind": "teacher"})
    assert corpus_identity(teacher, tmp_path, "one") != corpus_identity(teacher, tmp_path, "two")
    rows(tmp_path / "r.jsonl", 10)
    assert differs(made)


def test_corpora_of_earlier_versions_keep_their_identity_where_they_are_the_same(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 9)
    (tmp_path / "a.txt").write_text("a")

    def identity(workload: str, **settings: Any) -> dict[str, Any]:
        return corpus_identity(ladder(workload, settings), tmp_path, None)

    # As 0.3.0 hashed them: tests/flows/test_old_version.py restores a whole home.
    old = {"sequence_length", "valid_fraction", "test_fraction", "max_documents", "classes", "source", "columns"}
    kept = identity("causal-lm", **data)
    assert (set(kept["data"]), kept["preparation"]) == (old, 1)
    assert identity("causal-lm", **data, seed=5) == kept, "nothing is drawn"
    assert identity("image-classification", source="digits")["preparation"] == 1
    assert identity("causal-lm", **data | {"paths": ["a.txt"]})["preparation"] == 2, "split by content"
    assert identity("causal-lm", source="python-stdlib")["preparation"] == 2
    drawn = identity("causal-lm", **data, max_documents=5)
    assert drawn["preparation"] == 2
    assert identity("causal-lm", **data, max_documents=5, seed=1) != drawn
    assert identity("causal-lm", **data, max_train_documents=5) != kept
