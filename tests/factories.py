"""Records with plausible figures, small corpora and ladders; keywords replace what a test is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conf.schema.ladder import Ladder
from models.base.interface import Interface
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs

END, PAD, BYTES = 256, 257, 258  # ids of a byte vocabulary, and its size
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "day"]  # of `write_good_and_bad`


def model_record(name: str = "small", **changes: Any) -> StageRecord:
    """The record of a computed model of 1,000 parameters, without figures of quality."""
    fields: dict[str, Any] = {
        "fingerprint": f"fp-{name}",
        "identity": {},
        "folder": "",
        "weights_sha256": f"weights-{name}",
        "parameters": 1000,
        "non_embedding": 900,
        "flops_per_token": 1.0,
        "steps": 1,
        "tokens": 1,
        "flops": 1.0,
        "seconds": 1.0,
        "reused": False,
    }
    return StageRecord(name=name, **fields | changes)


def data_record(**changes: Any) -> DataRecord:
    """The record of computed data."""
    fields: dict[str, Any] = {"fingerprint": "d" * 64, "folder": "", "content_hash": "c" * 64, "reused": False, "seconds": 1.0}
    return DataRecord(**fields | changes)


def run_record(run: str = "tiny-1", *models: StageRecord, **changes: Any) -> RunRecord:
    """The record of a finished run of the ladder `tiny` with these models, the teacher first."""
    fields: dict[str, Any] = {
        "ladder": "tiny",
        "status": "done",
        "settings_hash": "s" * 64,
        "source": "tiny",
        "started": "2026-01-01T00:00:00+00:00",
        "pid": 1,
        "folder": "/nowhere",
        "teacher": models[0] if models else None,
        "stages": models[1:],
    }
    return RunRecord(run=run, **fields | changes)


def split_of(documents: Sequence[Sequence[int]], labels: Sequence[int], slices: Sequence[int], sizes: Sequence[int]) -> Split:
    """A split of these documents of ids, with a label, a slice and a size in bytes each."""
    lengths = [len(document) for document in documents]
    return Split(
        values=np.array([i for document in documents for i in document], dtype=np.uint16),
        offsets=np.array([0, *np.cumsum(lengths)], dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        slices=np.array(slices, dtype=np.int32),
        sizes=np.array(sizes, dtype=np.int64),
    )


def corpus_in(
    folder: Path, workload: str, length: int, splits: dict[str, Split], classes: int = 0, image: tuple[int, int, int] | None = None
) -> Corpus:
    """Write a corpus of these splits: of byte ids, or of images where a shape is given."""
    folder.mkdir(parents=True, exist_ok=True)
    text = image is None
    slices = 1 + max(int(split.slices.max(initial=0)) for split in splits.values())
    info = CorpusInfo(
        workload=workload,
        sequence_length=length,
        vocabulary=BYTES if text else None,
        end_id=END if text else None,
        pad_id=PAD if text else None,
        label_names=tuple(f"class {i}" for i in range(classes)),
        slice_names=tuple(f"slice {i}" for i in range(slices)),
        image_shape=image,
        documents={name: len(split) for name, split in splits.items()},
        tokens={name: len(split.values) for name, split in splits.items()},
    )
    write_corpus(folder, info, {name: splits[name] for name in SPLITS})
    return Corpus(folder, "hash")


def interface_for(corpus: Corpus) -> Interface:
    """The interface that a model of this corpus has."""
    info = corpus.info
    return Interface(info.workload, info.sequence_length, info.vocabulary, info.end_id, info.pad_id, info.classes, info.image_shape)


def write_good_and_bad(folder: Path) -> None:
    """Write `rows.csv`, 80 texts of `WORDS` whose class is one of their words, and the folder `home`."""
    rows = "".join(f"a {word} day {'a ' * (i % 7)},{word}\n" for i in range(40) for word in ("good", "bad"))
    (folder / "rows.csv").write_text("text,label\n" + rows)
    (folder / "home").mkdir()


def save_with_words(model: Any, folder: Path, words: Sequence[str] = WORDS) -> None:
    """Save a model with a BERT tokenizer of these words."""
    from transformers import BertTokenizer

    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def ladder_of_file(path: str = "rows.csv", length: int = 16, **settings: Any) -> Ladder:
    """A ladder named `tiny` on the texts and classes of a file, a fifth of them for each of validation and test.

    Args:
        path: The file, or a pattern.
        length: Of sequences, in ids.
        settings: More settings, at the least `teacher` and `stages`; they replace those of here.
    """
    fractions = {"valid_fraction": 0.2, "test_fraction": 0.2}
    plain: dict[str, Any] = {
        "name": "tiny",
        "workload": "sequence-classification",
        "data": {"source": "files", "paths": [path], "sequence_length": length, **fractions},
        "compute": {"at_once": None},  # no test waits for another training of this machine
    }
    return Ladder.model_validate(plain | settings)


def inputs_of(ladder: Ladder, folder: Path) -> StageInputs:
    """What a stage of a ladder gets, its data prepared; the home is the folder `home`."""
    from tasks.data.prepare import prepare_data

    context = Context(run="run-1", ladder=ladder.name, home=str(folder / "home"), base=str(folder))
    return StageInputs(ladder, prepare_data(ladder, context), context)


def write_functions(folder: Path) -> None:
    """Nine text files `texts/*.txt`, each a few lines of code."""
    (folder / "texts").mkdir()
    for index in range(9):
        text = f"def function_{index}(value):\n    return value * {index % 5} + len('{index}')\n" * 2
        (folder / "texts" / f"{index}.txt").write_text(text)
