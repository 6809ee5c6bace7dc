"""Several sources of files, mixed by weight."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS
from tasks.data.identity import corpus_identity
from tasks.data.splits import DROPPED, TEST, TRAIN, VALID, readings
from tasks.data.spool import place_of
from tasks.training.cost_model import training_examples
from tests.tasks.data.builders import build, decode, ladder, write_jsonl

KIND = "sequence-classification"


def data(folder: Path, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    """Settings of sources with 90 and 30 rows; the second has the weight."""
    for name, count in {"large": 90, "small": 30}.items():
        write_jsonl(folder / f"{name}.jsonl", [{"text": f"{name} {n}", "label": n % 2} for n in range(count)])
    sources = [{"name": "L", "paths": ["large.jsonl"]}, {"name": "S", "paths": ["small.jsonl"], "weight": weight}]
    return {"source": "files", "sources": sources, "sequence_length": 16, "valid_fraction": 0.2, "test_fraction": 0.2, **more}


def texts(folder: Path, settings: dict[str, Any]) -> dict[str, Counter[str]]:
    folder.mkdir(exist_ok=True)
    corpus, info, _ = build(ladder(KIND, settings), folder)
    return {name: Counter(decode(corpus, name, index) for index in range(info.documents[name])) for name in SPLITS}


def test_a_weight_repeats_training_documents_alone(tmp_path: Path) -> None:
    once, often = (texts(tmp_path / f"{weight}", data_in(tmp_path / f"{weight}", weight)) for weight in (1.0, 2.5))
    assert all(count == 1 for part in once.values() for count in part.values())
    assert (often["valid"], often["test"]) == (once["valid"], once["test"])
    assert {text: count for text, count in often["train"].items() if text.startswith("large")} == {
        text: 1 for text in once["train"] if text.startswith("large")
    }
    small = Counter(count for text, count in often["train"].items() if text.startswith("small"))
    assert set(small) == {2, 3}
    assert set(often["train"]) == set(once["train"])


def data_in(folder: Path, weight: float) -> dict[str, Any]:
    folder.mkdir()
    return data(folder, weight)


def test_batches_meet_the_weights_and_costs_count_each_text_once(tmp_path: Path) -> None:
    corpus, info, told = build(ladder(KIND, data(tmp_path, 3)), tmp_path)
    assert info.slice_names == ("L", "S")
    split = corpus.split("train")
    drawn = np.concatenate([TrainingBatches(corpus, 16, 0).numbers(step) for step in range(100)])
    expected = float(np.mean(split.slices == 1))
    assert abs(float(np.mean(split.slices[drawn] == 1)) - expected) < 0.02
    small = int((split.slices == 1).sum()) // 3
    assert any(line.startswith(f"weight 3, S: {small} training documents are read {3 * small} times") for line in told)
    examples = training_examples(corpus, cached=True)
    assert examples.distinct({0: len(split)}) == len(split) - 2 * small, "a teacher answers a text once"


def test_the_readings_of_a_document_follow_from_content_and_seed() -> None:
    places = np.array([place_of(f"t{n}") for n in range(2000)], dtype=np.uint64)
    parts = np.full(2000, TRAIN, dtype=np.uint8)
    parts[:3] = VALID, TEST, DROPPED
    times = readings(places, np.full(2000, 1.25, dtype=np.float32), parts, 0)
    assert times[:3].tolist() == [1, 1, 0]
    assert set(times[3:]) == {1, 2}
    assert abs(times[3:].mean() - 1.25) < 0.04
    assert (times == readings(places, np.full(2000, 1.25, dtype=np.float32), parts, 0)).all()
    assert (times != readings(places, np.full(2000, 1.25, dtype=np.float32), parts, 1)).any()
    half = readings(places, np.full(2000, 0.5, dtype=np.float32), parts, 0)
    assert set(half[3:]) == {0, 1}


def test_weights_and_names_are_part_of_the_identity_and_places_are_not(tmp_path: Path) -> None:
    def identity(**changes: Any) -> dict[str, Any]:
        settings = data(tmp_path)
        settings["sources"][1] |= changes
        return corpus_identity(ladder(KIND, settings), tmp_path, None)

    before = identity()
    assert before["data"]["sources"] == [{"name": "L", "weight": 1.0}, {"name": "S", "weight": 1.0}]
    assert before == identity(paths=["./small.json*"])
    assert before != identity(weight=2)
    assert before != identity(name="T")
    assert "sources" not in corpus_identity(ladder(KIND, {"source": "files", "paths": ["small.jsonl"]}), tmp_path, None)["data"]


def test_sources_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    settings = data(tmp_path)
    with pytest.raises(ValueError, match=r"got paths and sources; allowed: one of them"):
        ladder(KIND, settings | {"paths": ["small.jsonl"]})
    settings["sources"][1]["paths"] = ["*.jsonl"]
    with pytest.raises(
        UserError, match=r"data\.sources\[1\]\.paths\[0\]: got '\*\.jsonl'.*files that are not in L too.*large\.jsonl is in both"
    ):
        build(ladder(KIND, settings), tmp_path)
    settings["sources"][1]["name"] = "L"
    with pytest.raises(ValueError, match=r"got sources named L, L; allowed: a name of its own for each"):
        ladder(KIND, settings)


def test_a_source_without_documents_is_refused(tmp_path: Path) -> None:
    settings = data(tmp_path)
    (tmp_path / "small.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"data\.sources\[1\]\.paths: got 'small\.jsonl'; allowed: files with documents\. S has none"):
        build(ladder(KIND, settings), tmp_path)
