"""Scored pairs of texts, by which embeddings are judged; no model trains on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import CommonData, FilesData
from conf.schema.tables import ScoredPairs
from models.data.corpus import PAIR_SCORES, PAIRS, Split
from models.data.encoder import Encoder
from tasks.data.reading.files import file_contents, hash_files, list_files
from tasks.data.reading.readers import content_key
from tasks.data.reading.sources import renamed
from tasks.data.reading.tables import TABLES, read_rows
from tasks.data.spool import place_of

if TYPE_CHECKING:
    from conf.schema.ladder import Workload

LEAST = 3  # pairs with two scores: fewer have no ranks to compare
WORKLOAD: Workload = "embedding"


def read_pairs(data: CommonData, base: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Texts, the two of a pair one after the other (2 P), and scores (P,) of the tables of `data.pairs`.

    Raises:
        UserError: A file, a column or a value is missing, a score is no finite number, or there are too few pairs.
    """
    assert data.pairs is not None
    texts: list[str] = []
    scores: list[float] = []
    for first, second, score in _rows(data.pairs, base):
        texts += [first, second]
        scores.append(score)
    if len(scores) < LEAST or len(set(scores)) < 2:
        found = f"{len(scores)} pairs with {len(set(scores))} different scores"
        raise UserError.about("data.pairs", found, f"at least {LEAST} pairs, not all with one score", "Add some, or leave it out.")
    return texts, np.array(scores)


def pairs_hash(data: CommonData, base: Path) -> str:
    """Hash of the files of `data.pairs`, and of the names of their columns."""
    assert data.pairs is not None
    columns = "\0".join((data.pairs.first, data.pairs.second, data.pairs.score))
    with renamed({"data.paths": "data.pairs.paths"}):
        return f"{hash_files(file_contents(_as_files(data.pairs), base, WORKLOAD))} {columns}"


def write_pairs(data: CommonData, base: Path, encoder: Encoder, folder: Path, training: NDArray[np.uint64]) -> str:
    """Encode the pairs into a corpus; returns a remark with their number, and how many of their texts are training texts.

    Args:
        data: With `pairs`.
        base: Folder that relative paths count from.
        encoder: Of the corpus's texts.
        folder: Of the corpus.
        training: (n,) places of the training texts, see `tasks.data.spool.place_of`.
    """
    texts, scores = read_pairs(data, base)
    encoded = encoder.documents(texts)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(encoded.counts)])
    none = np.full(len(texts), -1, dtype=np.int64)
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    Split(encoded.values, offsets, none, np.zeros(len(texts), dtype=np.int32), sizes).save(folder / PAIRS)
    np.save(folder / PAIRS / PAIR_SCORES, scores, allow_pickle=False)
    known = np.isin(np.array([place_of(content_key(text)) for text in texts], dtype=np.uint64), training)
    shared = f"; {int(known.sum()):,} of their {len(texts):,} texts train, too, without the scores" if known.any() else ""
    return f"{len(scores):,} scored pairs to judge by{shared}"


def _as_files(pairs: ScoredPairs) -> FilesData:
    return FilesData(paths=pairs.paths)


def _rows(pairs: ScoredPairs, base: Path) -> Iterator[tuple[str, str, float]]:
    wanted = {"first": pairs.first, "second": pairs.second, "score": pairs.score}
    keys = {"data.paths": "data.pairs.paths", **{f"data.columns.{role}": f"data.pairs.{role}" for role in wanted}}
    with renamed(keys):
        for file in list_files(_as_files(pairs), base, WORKLOAD):
            if file.path.suffix.lower() not in TABLES:
                raise UserError.about("data.paths", file.name, f"tables: {', '.join(sorted(TABLES))}", "Write the pairs as one.")
            for origin, row in read_rows(file.name, file.path, wanted):
                for role in ("first", "second"):
                    if not isinstance(row[wanted[role]], str) or not row[wanted[role]]:
                        found = f"{origin} with {row[wanted[role]]!r}"
                        raise UserError.about(f"data.columns.{role}", found, "a text in every row", "Correct or drop the row.")
                yield row[pairs.first], row[pairs.second], _score(row[pairs.score], origin)


def _score(value: object, origin: str) -> float:
    try:
        score = float(str(value)) if value is not None and not isinstance(value, bool) else math.nan
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        found = f"{origin} with {value!r}"
        raise UserError.about("data.columns.score", found, "a finite number in every row", "Correct or drop the row.")
    return score
