"""Examples without label in a corpus: they train, they are never held out, and they are counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from models.data.corpus import SPLITS
from tasks.data.identity import corpus_identity
from tasks.proof.prepare_arms import label_note
from tasks.records.data import DataCounts
from tasks.report.sections.outcome import verdicts
from tests.factories import data_record, model_record, run_record
from tests.tasks.data.builders import build, decode, ladder, rows

DIGITS = {"source": "digits", "valid_fraction": 0.2, "test_fraction": 0.2}


def unlabelled(value: Any) -> Any:
    return lambda n: n % 2 if n % 3 == 0 else value


@pytest.mark.parametrize("value", [None, ""])
def test_rows_without_label_train_and_are_never_held_out(tmp_path: Path, value: Any) -> None:
    made = ladder("sequence-classification", rows(tmp_path / "r.jsonl", 90, unlabelled(value)) | {"sequence_length": 64})
    corpus, info, told = build(made, tmp_path)
    labels = {name: corpus.split(name).labels for name in SPLITS}
    assert (labels["train"] == -1).sum() == 60
    assert sum(len(part) for part in labels.values()) == sum(info.documents.values()) == 90
    assert all((labels[name] >= 0).all() and len(labels[name]) for name in ("valid", "test"))
    known = (labels["train"] >= 0).sum()
    assert any(line.startswith(f"Of {60 + known} training examples {known} have a label; the other 60 (") for line in told)
    assert info.label_names == ("0", "1")


def test_the_split_of_labelled_rows_is_that_of_a_source_without_the_others(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 60, unlabelled(None)) | {"sequence_length": 64}
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "r.jsonl").write_text("\n".join(line for line in lines if json.loads(line)["label"] is not None))
    both = [build(ladder("sequence-classification", data), base)[0] for base in (tmp_path, tmp_path / "alone")]
    for name in ("valid", "test"):
        one, other = ([decode(corpus, name, index) for index in range(len(corpus.split(name)))] for corpus in both)
        assert one == other != []


def test_an_unlabelled_row_that_a_held_out_one_equals_is_left_out(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 40) | {"sequence_length": 64}
    with (tmp_path / "r.jsonl").open("a") as file:
        for line in (tmp_path / "r.jsonl").read_text().splitlines():
            file.write(json.dumps(json.loads(line) | {"label": None}) + "\n")
    corpus, info, told = build(ladder("sequence-classification", data), tmp_path)
    held_out = info.documents["valid"] + info.documents["test"]
    assert (corpus.split("train").labels == -1).sum() == 40 - held_out
    assert f"{held_out} rows without label left out, which held-out rows equal" in told


def test_labels_are_hidden_by_seed(tmp_path: Path) -> None:
    kept = []
    for seed in (0, 0, 1):
        (base := tmp_path / f"{len(kept)}").mkdir()
        corpus, info, _ = build(ladder("image-classification", DIGITS | {"max_labels": 50, "seed": seed}), base)
        split = corpus.split("train")
        kept.append(np.flatnonzero(split.labels >= 0))
        assert len(kept[-1]) == 50
        assert (split.labels[kept[-1]] == split.slices[kept[-1]]).all(), "a label that was kept is the example's own"
        assert all((corpus.split(name).labels >= 0).all() for name in ("valid", "test"))
        assert len(split) == info.documents["train"]
    assert kept[0].tolist() == kept[1].tolist() != kept[2].tolist()


def test_without_hidden_labels_identity_and_corpus_are_as_before(tmp_path: Path) -> None:
    identity = corpus_identity(ladder("image-classification", DIGITS), tmp_path, None)
    assert not {"max_labels", "seed"} & set(identity["data"])
    hidden = corpus_identity(ladder("image-classification", DIGITS | {"max_labels": 50, "seed": 1}), tmp_path, None)
    assert (hidden["data"]["max_labels"], hidden["data"]["seed"]) == (50, 1)


def test_no_label_at_all_or_more_than_there_are_is_refused(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 30, lambda n: None)
    with pytest.raises(UserError, match=r"data\.columns\.label: got 'no label'.*All 30 have none, the first r\.jsonl:1"):
        build(ladder("sequence-classification", data), tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match=r"data\.max_labels: got 1797; allowed: at most the \d+ labels of the training part"):
        build(ladder("image-classification", DIGITS | {"max_labels": 1797}), tmp_path / "digits")
    with pytest.raises(ValueError, match=r"data\.max_labels: got 3; allowed: none, for workload causal-lm"):
        ladder("causal-lm", {"source": "python-stdlib", "max_labels": 3})


def test_the_shares_are_said() -> None:
    words = DataCounts(labelled=100, unlabelled=900).labels_in_words
    assert words is not None
    assert words.startswith("Of 1,000 training examples 100 have a label; the other 900 (90.0 %) serve the models that have a teacher")
    assert DataCounts(labelled=100, unlabelled=0).labels_in_words is None is DataCounts().labels_in_words


def test_report_and_proof_say_them() -> None:
    data = data_record(counts=DataCounts(labelled=100, unlabelled=900))
    sentence = verdicts(run_record("few-1", model_record(), data=data))[-1]
    assert sentence.startswith("Of 1,000 training examples 100 have a label")
    (note,) = label_note(data, ["staged", "scratch", "label-smoothing"])
    assert note == f"{sentence} scratch and label-smoothing: the labelled examples alone, repeated until the FLOPs are the ladder's."
    assert label_note(data, ["staged", "direct"]) == [sentence]
    assert (
        label_note(data_record(counts=DataCounts(labelled=100, unlabelled=0)), ["scratch"]) == [] == label_note(data_record(), ["scratch"])
    )
    assert not [line for line in verdicts(run_record("all-1", model_record(), data=data_record())) if "label" in line]
