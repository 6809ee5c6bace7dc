"""Look at data: format, columns, labels, given splits, lengths."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from conf.errors import UserError
from conf.loading.short_forms import SAVED_DATASET, nameless_sources
from conf.schema.workloads import reads_pictures
from tasks.data.reading.hub_datasets import check_saved
from tasks.data.reading.images import SUFFIXES, image_files
from tasks.data.reading.readers import SPLIT_WORDS
from tasks.data.reading.tables import TABLES, read_rows
from tasks.data.reading.text_files import read_text, unreadable
from tasks.records.format import byte_size, human

SAMPLE = 2000  # rows or files that are looked at
FORMATS = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
MOST_FILES = 20  # that are named one by one, as given splits
SENTENCE = 5  # words of a name, from which on it is none
SHOWN = 80  # characters of a line in a message
MOST_VALUES = 200  # different values of a column that may hold classes or groups

Kind = Literal["text", "number", "messages", "image", "other"]


@dataclass(frozen=True)
class ColumnLook:
    """A column of a table, as far as the sample shows it.

    Attributes:
        name: Of the column.
        kind: text, number (also one written as text), messages of a chat, image, or other.
        values: Its values with their numbers of rows, the commonest first; empty where they do not repeat.
        distinct: Number of different values.
        length: Mean length in characters.
    """

    name: str
    kind: Kind
    values: tuple[tuple[str, int], ...]
    distinct: int
    length: float

    @property
    def is_split(self) -> bool:
        """Whether its values are names of splits."""
        found = {value.strip().casefold() for value, _ in self.values}
        return bool(found) and found <= set(SPLIT_WORDS) and any(word.startswith("train") for word in found)


@dataclass(frozen=True)
class DataLook:
    """Data as `ladder init` sees them.

    Attributes:
        source: Kind of source in the settings.
        given: Paths, patterns or the name, as they were given.
        format: In words.
        files: Number of files.
        bytes: Of all files.
        rows: Rows, files or images in all; estimated from the sample where the files are large.
        columns: Of a table.
        sample: Rows that were looked at, or one `{"text": ...}` for each text file.
        classes: Folders of images.
        parts: Split -> its files, where the names of all files say so.
    """

    source: str
    given: tuple[str, ...]
    format: str
    files: int
    bytes: int
    rows: int
    columns: tuple[ColumnLook, ...] = ()
    sample: tuple[Mapping[str, Any], ...] = ()
    classes: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def has_images(self) -> bool:
        """Whether they hold images."""
        shipped = nameless_sources().get(self.source)
        if shipped is not None:
            return reads_pictures(shipped.workloads[0])
        return bool(self.classes) or any(column.kind == "image" for column in self.columns)

    def texts(self, *columns: str) -> list[str]:
        """The sampled texts of columns, those of a row together; of conversations the messages."""
        found = ("\n".join(_said(row[column]) for column in columns if row.get(column)) for row in self.sample)
        return [text for text in found if text]

    def words(self) -> str:
        """One line about them."""
        if self.source in nameless_sources():
            return f"the shipped source {self.source}"
        rows = "images" if self.classes else "documents" if self.format == "text" else "rows"
        about = "" if self.rows == len(self.sample) or self.classes else "about "
        text = f"{self.format}, {self.files:,} file{'s' * (self.files != 1)}, {byte_size(self.bytes)}, {about}{human(self.rows)} {rows}"
        if self.columns:
            text += f", columns {', '.join(f'{c.name} ({_kind_words(c)})' for c in self.columns)}"
        return text


def _kind_words(column: ColumnLook) -> str:
    if column.values:
        return f"{column.distinct} value{'s' * (column.distinct != 1)}"
    return f"text, {column.length:,.0f} characters on average" if column.kind == "text" else column.kind


def _said(value: Any) -> str:
    return "\n".join(str(turn.get("content")) for turn in value) if isinstance(value, list) else str(value)


def look_at_data(given: Sequence[str], base: Path) -> DataLook:
    """Read as much of the data as shows format, columns and classes.

    Args:
        given: Files, patterns, a folder of images, the folder of a saved dataset, or the name of a shipped source.
        base: Folder that relative paths count from.

    Raises:
        UserError: Nothing is there, it cannot be read, or it mixes kinds of files.
    """
    if len(given) == 1 and (shipped := nameless_sources().get(given[0])):
        return DataLook(given[0], tuple(given), given[0], 0, 0, shipped.rows)
    first = base / os.path.expanduser(given[0])
    if len(given) == 1 and any((first / marker).is_file() for marker in SAVED_DATASET):
        return _dataset(given[0], first)
    patterns, files = [], list[Path]()
    for pattern in given:
        pattern, found = _files(pattern, base)
        patterns.append(pattern)
        files += found
    suffixes = Counter("text" if path.suffix.lower() not in TABLES | SUFFIXES else path.suffix.lower() for path in files)
    images = sum(count for suffix, count in suffixes.items() if suffix in SUFFIXES)
    size = sum(path.stat().st_size for path in files)
    if images and images == len(files):
        classes = tuple(sorted({path.parent.name for path in files}))
        if len(classes) < 2:
            allowed = "a folder for each class with its images in it, or a table that names image files"
            raise UserError.about(
                "--data", ", ".join(given), allowed, f"All {len(files):,} images lie in {files[0].parent.name}: name another."
            )
        return DataLook("files", tuple(patterns), "folders of images", len(files), size, len(files), classes=classes)
    if len(suffixes) > 1:
        words = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
        raise UserError.about("--data", ", ".join(given), "files of one kind", f"These are {words}: name one kind, such as data/*.csv.")
    (suffix,) = suffixes
    parts = _parts(files, base)
    if suffix == "text":
        texts = [{"text": read_text(path.name, path)} for path in files[:SAMPLE]]
        _check_content(given, any(row["text"].strip() for row in texts))
        return DataLook("files", tuple(patterns), "text", len(files), size, len(files), sample=tuple(texts), parts=parts)
    rows = list(_sampled(files))
    _check_content(given, any(rows))
    if suffix in (".csv", ".tsv"):
        _check_header(given, _columns(rows))
    count = _rows(files, rows, size)
    return DataLook("files", tuple(patterns), FORMATS[suffix], len(files), size, count, _columns(rows), tuple(rows), parts=parts)


def _check_content(given: Sequence[str], found: bool) -> None:
    if not found:
        raise UserError.about("--data", ", ".join(given), "data with rows or text", "There is nothing in them: name others.")


def _check_header(given: Sequence[str], columns: Sequence[ColumnLook]) -> None:
    """Refuse a table whose first line is a row: a name is a value of its own column, a number over numbers, or a sentence.

    Raises:
        UserError: With the first line.
    """
    numbered = [column.name for column in columns] == [str(place) for place in range(len(columns))]  # as pandas names columns
    for column in columns:
        value = any(column.name == value for value, _ in column.values)
        number = column.kind == "number" and _is_number(column.name)
        if (value or number or len(column.name.split()) >= SENTENCE) and not numbered:
            line = ", ".join(each.name for each in columns)
            names = ",".join(["text", "label", *(f"column{place}" for place in range(3, len(columns) + 1))][: len(columns)])
            allowed = "a table whose first line names its columns"
            remedy = f"Its first line seems to be a row, by {_short(column.name)!r}: write a line above it, such as {names}."
            raise UserError.about("--data", f"{', '.join(given)} with the columns {_short(line)}", allowed, remedy)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _parts(files: Sequence[Path], base: Path) -> dict[str, tuple[str, ...]]:
    """Split -> its files, where the name of each has one word for a split in it; nothing where there are many files."""
    found: dict[str, tuple[str, ...]] = {}
    for path in files:
        splits = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", path.stem.casefold()) if word in SPLIT_WORDS}
        if len(splits) != 1:
            return {}
        name = os.path.relpath(path, base) if path.is_relative_to(base) else str(path)
        split = splits.pop()
        found[split] = (*found.get(split, ()), name)
    return found if "train" in found and len(found) > 1 and len(files) <= MOST_FILES else {}


def _files(pattern: str, base: Path) -> tuple[str, list[Path]]:
    """The files of a path or pattern; of a folder the images in it, else the files of its commonest kind, and their pattern."""
    place = str(base / os.path.expanduser(pattern))
    hits = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
    files = [Path(hit) for hit in hits if os.path.isfile(hit)]
    if not files and len(hits) == 1 and os.path.isdir(hits[0]):
        folder = Path(hits[0])
        if images := image_files(folder):
            return pattern, images
        inside = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        if inside:
            suffix = Counter(path.suffix for path in inside).most_common(1)[0][0]
            return f"{pattern.rstrip('/')}/**/*{suffix}", [path for path in inside if path.suffix == suffix]
    if not files:
        allowed = "a file, a pattern that matches files, or a folder with files"
        raise UserError.about("--data", pattern, allowed, f"Nothing is at {place}, or in it.")
    return pattern, files


def _sampled(files: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    each = max(SAMPLE // len(files), 1)
    for path in files[:SAMPLE]:
        if path.suffix.lower() == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            try:
                with parquet.ParquetFile(path) as file:
                    batch = next(file.iter_batches(batch_size=each), None)
                    yield from batch.to_pylist() if batch is not None else ()
            except pa.ArrowException as error:
                raise unreadable(path.name, str(error)) from error
        else:
            yield from (row for _, row in islice(read_rows(path.name, path, {}), each))


def _rows(files: Sequence[Path], sample: Sequence[Mapping[str, Any]], size: int) -> int:
    """Rows in all; of large files other than Parquet an estimate by their bytes."""
    if all(path.suffix.lower() == ".parquet" for path in files):
        from pyarrow import parquet

        return sum(parquet.ParquetFile(path).metadata.num_rows for path in files)
    if len(sample) < max(SAMPLE // len(files), 1) * len(files):
        return len(sample)
    each = sum(len(str(value)) + 4 for row in sample for value in row.values()) / max(len(sample), 1)
    return max(round(size / max(each, 1)), len(sample))


def _dataset(name: str, folder: Path) -> DataLook:
    import datasets

    check_saved(folder)
    loaded: Any = datasets.load_from_disk(str(folder))
    split = loaded["train"] if isinstance(loaded, datasets.DatasetDict) and "train" in loaded else loaded
    split = next(iter(split.values())) if isinstance(split, datasets.DatasetDict) else split
    rows = [split[index] for index in range(min(len(split), SAMPLE // 4))]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return DataLook("dataset", (name,), "a saved dataset", 1, size, len(split), _columns(rows), tuple(rows))


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[ColumnLook, ...]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return tuple(_column(name, [row[name] for row in rows if row.get(name) not in (None, "")]) for name in names)


def _column(name: str, values: Sequence[Any]) -> ColumnLook:
    values = [str(value) if isinstance(value, bool) else value for value in values]  # a switch is a class of its name
    kind = _kind(values)
    counts = Counter(str(value).strip() for value in values) if kind in ("text", "number") else Counter[str]()
    repeats = len(counts) <= MOST_VALUES and 2 * len(counts) <= len(values)
    few = tuple(counts.most_common()) if repeats else ()
    length = sum(len(str(value)) for value in values) / max(len(values), 1)
    return ColumnLook(name, kind, few, len(counts), length)


def _kind(values: Iterable[Any]) -> Kind:
    seen = list(islice(values, 100))
    if seen and all(_is_number(value) for value in seen):
        return "number"
    if seen and all(isinstance(value, str) for value in seen):
        return "image" if all(Path(value).suffix.lower() in SUFFIXES for value in seen) else "text"
    if seen and all(hasattr(value, "mode") or (isinstance(value, dict) and {"bytes", "path"} & set(value)) for value in seen):
        return "image"
    chats = (isinstance(value, list) and value and isinstance(value[0], dict) and {"role", "content"} <= set(value[0]) for value in seen)
    return "messages" if seen and all(chats) else "other"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)
