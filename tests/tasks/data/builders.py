"""Sources, ladders on them, and their corpora."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf.schema.data import FilesData
from conf.schema.ladder import Ladder
from conf.schema.tables import Columns
from models.data import tokenizers
from models.data.corpus import Corpus, CorpusInfo
from tasks.data.build import build_corpus
from tasks.data.reading.readers import Document

TRAINING = {"steps": 1}


SHAPES: dict[str, dict[str, Any]] = {
    "causal-lm": {"family": "llama", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8},
    "sequence-classification": {"family": "bert", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8},
    "image-classification": {"family": "vit", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8},
}


def ladder(workload: str, data: dict[str, Any], tokenizer: dict[str, Any] | None = None, name: str = "small") -> Ladder:
    teaches = (tokenizer or {}).get("kind") == "teacher"
    return Ladder.model_validate(
        {
            "name": name,
            "workload": workload,
            "data": data,
            "tokenizer": tokenizer or {"kind": "bytes"},
            "teacher": {"source": "checkpoint", "path": "t"}
            if teaches
            else {"source": "train", "shape": SHAPES[workload], "training": TRAINING},
            "stages": [{"name": "only", "student": {"shape": SHAPES[workload]}, "training": TRAINING}],
        }
    )


def rows(path: Path, count: int, label: Any = lambda n: n % 2) -> dict[str, Any]:
    """Write `count` labelled rows and return the settings that read them."""
    texts = [f"row {n}: the brown fox {'ran ' * (n % 5)}home" for n in range(count)]
    path.write_text("".join(json.dumps({"text": text, "label": label(n), "group": f"g{n % 3}"}) + "\n" for n, text in enumerate(texts)))
    return {"source": "files", "paths": [path.name], "columns": {"slice": "group"}, "valid_fraction": 0.2, "test_fraction": 0.2}


def build(made: Ladder, base: Path, teacher: Path | None = None) -> tuple[Corpus, CorpusInfo, list[str]]:
    folder = base / "corpus"
    folder.mkdir()
    told: list[str] = []
    info = build_corpus(made, base, teacher, folder, told.append)
    return Corpus(folder, "hash"), info, told


def decode(corpus: Corpus, name: Any, index: int) -> str:
    split = corpus.split(name)
    tokenizer = tokenizers.load(corpus.folder / "tokenizer")
    ids = split.values[split.offsets[index] : split.offsets[index + 1]].tolist()
    return str(tokenizer.decode(ids, skip_special_tokens=True))


ROWS = [
    {"text": "one, with a comma\nand two lines", "label": "good", "group": "x"},
    {"text": 'a "quoted" ünï', "label": "bad", "group": "y"},
    {"text": "NA", "label": "good", "group": "x"},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    path.write_text(json.dumps(rows, indent=1))


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".json": write_json,
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".parquet": write_parquet,
}


def files(*paths: str, **columns: str) -> FilesData:
    return FilesData(paths=paths, columns=Columns(**columns))


def texts(documents: list[Document]) -> list[str | None]:
    return [document.text for document in documents]


def save_dataset(folder: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None, split: str | None = None) -> None:
    import datasets

    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
    (made if split is None else datasets.DatasetDict({split: made})).save_to_disk(str(folder))
