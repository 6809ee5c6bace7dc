"""Read top-k answers of a language model from a file, by the text of documents.

Shape legend: n positions of a document, K listed ids, T ids of a corpus, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.teacher import AnswersTeacher
from models.architectures.answers import LEAST, text_key
from models.architectures.token_answers import TokenTable
from models.data import tokenizers
from models.data.corpus import SPLITS, Corpus
from tasks.teachers.answer_file import KEY, SUM_TOLERANCE, unanswered, wrong_row

AT_ONCE = 64  # rows of the file


class _Row(NamedTuple):
    """A row of the file: its number, text and answers, the listed ids of all positions one after another."""

    number: int
    text: str | None
    counts: NDArray[np.int64]  # (n,) listed ids of each position
    ids: NDArray[np.int64]
    log_p: NDArray[np.float64]


def match_token_answers(teacher: AnswersTeacher, file: Path, corpus: Corpus) -> TokenTable:
    """The answers to every id of the corpus.

    Raises:
        UserError: A row's lengths, ids or log-probabilities are wrong; with the row. Or documents have no answers; with their number.
    """
    assert corpus.tokenizer_folder is not None
    assert corpus.info.vocabulary is not None
    tokenizer, vocabulary = tokenizers.load(corpus.tokenizer_folder), corpus.info.vocabulary
    end = tokenizers.frame(tokenizer)[1]
    wanted = _documents(corpus)
    table = _empty(corpus, _most_ids(teacher, file, vocabulary))
    found: set[bytes] = set()
    for rows in _rows(teacher, file):
        texts = [row.text or "" for row in rows]
        for row, plain in zip(rows, tokenizers.encode(tokenizer, texts), strict=True):
            if row.text is None:
                raise wrong_row(teacher, row.number, "no text", f"text in the column {teacher.text}")
            ids = np.array([*plain, *end])
            key = text_key(ids)
            if key in found or key not in wanted:
                continue
            found.add(key)
            listed = _distributions(teacher, row, len(ids), vocabulary, table.ids.shape[1])
            for place in wanted[key]:
                for stored, values in zip((table.ids, table.log_p, table.log_residual), listed, strict=True):
                    stored[place : place + len(ids)] = values
    _check_all(teacher, corpus, wanted, found)
    return table


def _documents(corpus: Corpus) -> dict[bytes, list[int]]:
    """Positions of the first predicted id of each document, the splits one after another, by the `text_key` of its predicted ids."""
    wanted: dict[bytes, list[int]] = {}
    base, prefix = 0, len(corpus.info.prefix)
    for name in SPLITS:
        split = corpus.split(name)
        for begin, end in zip(split.offsets[:-1] + prefix, split.offsets[1:], strict=True):
            wanted.setdefault(text_key(np.asarray(split.values[begin:end])), []).append(base + int(begin))
        base += len(split.values)
    return wanted


def _empty(corpus: Corpus, most: int) -> TokenTable:
    """A table with the corpus itself as answer: right for a beginning-of-text id, which no row of the file predicts."""
    values = np.concatenate([np.asarray(corpus.split(name).values) for name in SPLITS]).astype(np.int32)
    log_p = np.full((len(values), most), -np.inf, dtype=np.float32)
    log_p[:, 0] = np.log1p(-LEAST)
    return TokenTable(values, np.repeat(values[:, None], most, axis=1), log_p, np.full(len(values), np.log(LEAST), dtype=np.float32))


def _most_ids(teacher: AnswersTeacher, file: Path, vocabulary: int) -> int:
    """The largest number of ids that a position lists."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    for name, number in ((teacher.ids, pa.types.is_integer), (teacher.logprobs, pa.types.is_floating)):
        kind = parquet.schema_arrow.field(name).type
        inner = getattr(kind, "value_type", None)
        if not number(getattr(inner, "value_type", None) or pa.null()):
            raise UserError.about(KEY, f"{teacher.path}, whose column {name} is {kind}", "lists of lists of numbers", "Write it again.")
    some = parquet.iter_batches(AT_ONCE, columns=[teacher.ids])
    longest = (pc.call_function("max", [pc.call_function("list_value_length", [batch.column(0).flatten()])]).as_py() for batch in some)
    return min(max((most or 1 for most in longest), default=1), vocabulary)


def _rows(teacher: AnswersTeacher, file: Path) -> Iterator[list[_Row]]:
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(file).iter_batches(AT_ONCE, columns=[teacher.text, teacher.ids, teacher.logprobs]):
        texts = batch.column(teacher.text).to_pylist()
        positions, counts, ids = _flat(batch.column(teacher.ids))
        others, other_counts, log_p = _flat(batch.column(teacher.logprobs))
        rows, at, first = list[_Row](), 0, 0
        for text, length, other in zip(texts, positions.tolist(), others.tolist(), strict=True):
            number += 1
            own = counts[at : at + length]
            if length != other or not np.array_equal(own, other_counts[at : at + length]):
                fault = f"{teacher.ids} and {teacher.logprobs} of unequal lengths"
                raise wrong_row(teacher, number, fault, "a log-probability for each id")
            after = first + int(own.sum())
            rows.append(_Row(number, text, own, ids[first:after].astype(np.int64), log_p[first:after].astype(np.float64)))
            at, first = at + length, after
        yield rows


def _flat(column: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Positions of each row, numbers of each position, and all numbers one after another."""
    import pyarrow.compute as pc

    def lengths(lists: Any) -> NDArray[np.int64]:
        return pc.call_function("list_value_length", [lists]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)

    inner = column.flatten()
    return lengths(column), lengths(inner), inner.flatten().to_numpy(zero_copy_only=False)


def _distributions(
    teacher: AnswersTeacher, row: _Row, length: int, vocabulary: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ids (n, K), log-probabilities (n, K) and log-residuals (n,) of a row, checked; each sums to 1, with a residual of `LEAST` or more.

    Raises:
        UserError: With the row, and the first wrong position.
    """
    if len(row.counts) != length:
        allowed = f"{length}: one for each of the {length - 1} ids of the text as the ladder's tokenizer encodes it, and one for the end id"
        raise wrong_row(teacher, row.number, f"answers at {len(row.counts)} positions", allowed)
    used = np.arange(most) < row.counts[:, None]
    if row.counts.min() < 1 or row.counts.max() > most:
        at = int(np.flatnonzero((row.counts < 1) | (row.counts > most))[0])
        raise wrong_row(teacher, row.number, f"{row.counts[at]} ids at position {at + 1}", f"1 to {vocabulary} different ids")
    ids, log_p = np.zeros(used.shape, dtype=np.int64), np.full(used.shape, -np.inf)
    ids[used], log_p[used] = row.ids, row.log_p
    apart = np.sort(np.where(used, ids, -1 - np.arange(most)), axis=1)
    listed = np.exp(np.where(used, log_p, -np.inf))
    total = listed.sum(axis=1)
    faults = {
        f"an id outside 0 to {vocabulary - 1}, the vocabulary of the data's tokenizer": (used & ((ids < 0) | (ids >= vocabulary))).any(1),
        "an id twice": (apart[:, 1:] == apart[:, :-1]).any(axis=1),
        "a log-probability that is not finite": (used & ~np.isfinite(log_p)).any(axis=1),
        "probabilities that add up to more than 1": ~(total <= 1 + SUM_TOLERANCE),
    }
    for fault, where in faults.items():
        if where.any():
            at = int(np.flatnonzero(where)[0])
            allowed = "natural log-probabilities of different ids of the vocabulary"
            raise wrong_row(teacher, row.number, f"{fault}, at position {at + 1}", allowed)
    full = row.counts == vocabulary
    share = np.where(full, 1.0, np.minimum(total, 1 - LEAST))  # of the listed ids
    log_p += np.log(share / total)[:, None]
    with np.errstate(divide="ignore"):
        residual = np.log(1 - share)
    return np.where(used, ids, ids[:, :1]), log_p, residual


def _check_all(teacher: AnswersTeacher, corpus: Corpus, wanted: dict[bytes, list[int]], found: set[bytes]) -> None:
    missing = sum(len(places) for key, places in wanted.items() if key not in found)
    if not missing:
        return
    first, base, example = min(places[0] for key, places in wanted.items() if key not in found), 0, ""
    assert corpus.tokenizer_folder is not None
    for name in SPLITS:
        split = corpus.split(name)
        if base <= first < base + len(split.values):
            ids = np.asarray(split.values[first - base : first - base + 100]).tolist()
            ends = [place for place, token in enumerate(ids) if token == corpus.info.end_id]
            ids = ids[: ends[0]] if ends else ids
            example = cast(str, tokenizers.load(corpus.tokenizer_folder).decode(ids, skip_special_tokens=True))
        base += len(split.values)
    total = sum(len(places) for places in wanted.values())
    remedy = f"The first without one begins with {example[:100]!r}. Texts must be those of the data, letter by letter."
    raise unanswered(teacher, missing, total, remedy)
