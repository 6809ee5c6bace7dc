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
from tasks.training.costs.examples import training_examples
from tests.tasks.data.builders import build, decode, ladder, save_dataset, write_jsonl

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


def mixed(folder: Path, weight: float = 2.0, **dataset: Any) -> dict[str, Any]:
    """Settings of 30 rows of a file, and of 40 rows of a saved dataset with other columns and class names of its own."""
    import datasets

    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "rows.jsonl", [{"text": f"file {n}", "label": ("no", "yes")[n % 2]} for n in range(30)])
    kinds = {"content": datasets.Value("string"), "kind": datasets.ClassLabel(names=["no", "yes"])}
    content = {"content": [f"saved {n}" for n in range(40)], "kind": [n % 2 for n in range(40)]}
    save_dataset(folder / "saved", content, kinds, split="first")
    source = {
        "name": "D",
        "dataset": "saved",
        "split": "first",
        "weight": weight,
        "columns": {"text": "content", "label": "kind"},
        **dataset,
    }
    sources = [{"name": "F", "paths": ["rows.jsonl"]}, source]
    return {"source": "files", "sources": sources, "sequence_length": 16, "valid_fraction": 0.2, "test_fraction": 0.2}


def test_files_and_a_dataset_are_mixed_by_weight_and_classes_by_name(tmp_path: Path) -> None:
    corpus, info, _ = build(ladder(KIND, mixed(tmp_path)), tmp_path)
    assert (info.label_names, info.slice_names) == (("no", "yes"), ("D", "F"))
    found = Counter(decode(corpus, "train", index) for index in range(info.documents["train"]))
    assert {text.split()[0]: count for text, count in found.items()} == {"file": 1, "saved": 2}
    for index in range(info.documents["train"]):
        assert corpus.split("train").labels[index] == int(decode(corpus, "train", index).split()[1]) % 2


def test_batches_of_a_mixture_are_the_same_from_any_step_on_and_in_a_corpus_made_anew(tmp_path: Path) -> None:
    first, again = (build(ladder(KIND, mixed(tmp_path / name, 2.5)), tmp_path / name)[0] for name in ("one", "two"))
    whole = TrainingBatches(first, 8, 3)
    steps = [whole.at(step) for step in range(40)]  # several epochs
    for step in (39, 17, 0):
        resumed = TrainingBatches(again, 8, 3).at(step)
        assert np.array_equal(resumed.inputs["input_ids"], steps[step].inputs["input_ids"])
        assert np.array_equal(resumed.targets, steps[step].targets)


def test_what_changes_a_mixture_changes_its_identity(tmp_path: Path) -> None:
    def identity(folder: Path, **changes: Any) -> dict[str, Any]:
        return corpus_identity(ladder(KIND, mixed(folder, **changes)), folder, None)

    usual = identity(tmp_path)
    assert identity(tmp_path) == usual
    assert identity(tmp_path, weight=3.0) != usual
    assert identity(tmp_path, columns={"text": "content", "label": "content"}) != usual
    assert identity(tmp_path, split="second") != usual
    save_dataset(tmp_path / "other", {"content": ["a"], "kind": ["yes"]}, split="first")
    assert identity(tmp_path, dataset="other") != usual


def test_misfits_of_a_dataset_name_its_source(tmp_path: Path) -> None:
    for dataset, message in (
        ({"dataset": "./gone"}, r"data\.sources\[1\]\.dataset: got './gone'; allowed: a folder written by save_to_disk"),
        ({"split": "third"}, r"data\.sources\[1\]\.split: got 'third'; allowed: the splits of saved: first"),
        ({"columns": {"text": "words"}}, r"data\.sources\[1\]\.columns\.text: got 'words'; allowed: the columns of saved: content, kind"),
    ):
        folder = tmp_path / str(len(message))
        with pytest.raises(UserError, match=message):
            build(ladder(KIND, mixed(folder, **dataset)), folder)
    for source, message in (
        ({"name": "A", "paths": ["a"], "dataset": "b"}, "got paths and dataset; allowed: one of them"),
        ({"name": "A"}, "got neither paths nor dataset"),
        ({"name": "A", "paths": ["a"], "revision": "1"}, "got subset or revision without dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            ladder(KIND, {"source": "files", "sources": [source]})
