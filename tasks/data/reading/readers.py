"""Documents made of the rows of tables and datasets."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.errors import UserError
from conf.schema.data import DatasetData, FilesData
from conf.schema.ladder import Workload
from conf.schema.tables import Columns
from conf.schema.workloads import has_classes
from models.data.chat import without_rationale
from models.data.corpus import SplitName
from models.data.images import BROKEN, PixelArray, ReadImage, UnreadableImage
from tasks.data.reading.conversations import row_conversation
from tasks.data.reading.labels import Label, class_name, clean_label
from tasks.data.reading.tables import Row
from tasks.data.reading.text_files import unreadable

ONE_SLICE = "all"
SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One document, or one example.

    Attributes:
        key: Decides the split: documents of one key never part. A hash of the content, or a name in its place.
        slice: Group that it is reported under.
        origin: Where a person finds it, such as `reviews.csv:12`.
        text: Its text, for text workloads.
        image: (C, H, W) for image workloads: bytes as `tasks.data.reading.images` stores them, or float32. Beside a text the
            `pixel_values` (m, ...) of a vision-language model.
        label: Its class as the source writes it; None where the source has none.
        split: The split that the source puts it in; None: the hash of its key decides.
        weight: Times that it is read in an epoch, if it trains.
        transfer: Whether it trains, and is never held out.
    """

    key: str
    slice: str
    origin: str
    text: str | None = None
    image: PixelArray | None = None
    label: Label | None = None
    split: SplitName | None = None
    weight: float = 1.0
    transfer: bool = False


def content_key(text: str) -> str:
    """The key of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def wanted_columns(columns: Columns, workload: Workload) -> dict[str, str]:
    """Role -> name of the columns that a workload reads."""
    contents = ["image" if workload == "image-classification" else "text"]
    contents += ["image"] if workload == "image-text-embedding" else []
    if columns.conversations:
        contents = ["messages"] if columns.messages is not None else ["prompt", "completion"]
        contents += ["image"] if workload == "image-text" else []
        contents += [] if columns.rationale is None else ["rationale"]
    wanted = {content: getattr(columns, content) for content in contents}
    if has_classes(workload):
        wanted["label"] = columns.label
    if columns.slice is not None:
        wanted["slice"] = columns.slice
    return wanted


def missing_role(row: Mapping[str, Any], columns: Columns, workload: Workload) -> str | None:
    """`text`, `image` or `label` if the row has none: no value, NaN or an empty text; a rationale may be missing."""
    for role, name in wanted_columns(columns, workload).items():
        value = row[name]
        empty = not value.strip() if isinstance(value, str) and role == "label" else isinstance(value, str) and not value
        if role not in ("slice", "rationale") and (value is None or empty or (isinstance(value, float) and math.isnan(value))):
            return role
    return None


def row_document(
    row: Mapping[str, Any],
    columns: Columns,
    workload: Workload,
    origin: str,
    class_names: Sequence[str] = (),
    read_image: ReadImage | None = None,
    split: SplitName | None = None,
) -> Document:
    """Make a document of a row.

    Args:
        row: Column to value.
        columns: Names of the columns, by role.
        workload: Decides which columns are read.
        origin: Where the row stands.
        class_names: Names of the classes 0, 1, ... in the column of slices, where the source declares them.
        read_image: Gives pixels and key of a cell; for image workloads.
        split: Split that the source puts it in.

    Raises:
        UserError: Its text is empty or no text, its image no image, or its label neither number nor text.
    """
    label = clean_label(row[columns.label], columns, origin) if has_classes(workload) else None
    group = _slice(row, columns, class_names)
    if read_image is not None:
        if row[columns.image] is None or row[columns.image] == "":
            remedy = f"{origin} has none: data.missing=drop leaves such rows out."
            raise UserError.about("data.columns.image", columns.image, "an image in every row", remedy)
        image, key = read_image(row[columns.image], origin)
        if workload in ("image-text", "image-text-embedding"):
            text = row_conversation(row, columns, origin) if workload == "image-text" else _caption(row, columns, origin)
            return Document(content_key(key + text), group, origin, text=text, image=image, split=split)
        return Document(key, group, origin, image=image, label=label, split=split)
    text = row_conversation(row, columns, origin) if columns.conversations else row[columns.text]
    try:
        if not isinstance(text, str) or not (text or workload in ("causal-lm", "embedding")):
            remedy = f"{origin} holds {text!r}: data.missing=drop leaves such rows out."
            raise UserError.about("data.columns.text", columns.text, "a column of text in every row", remedy)
        key = content_key(text if columns.rationale is None else without_rationale(text))
        return Document(key, group, origin, text=text, label=label, split=split)
    except UnicodeEncodeError as error:  # JSON may write half of a surrogate pair
        raise unreadable(origin, f"the text is not Unicode: {error.reason}") from error


def _caption(row: Mapping[str, Any], columns: Columns, origin: str) -> str:
    value = row[columns.text]
    if not isinstance(value, str) or not value:
        remedy = f"{origin} holds {value!r}: data.missing=drop leaves such rows out."
        raise UserError.about("data.columns.text", columns.text, "a column of text in every row", remedy)
    return value


def split_named(word: Any, column: str, origin: str) -> SplitName:
    """The split that a word means.

    Raises:
        UserError: It is none of the usual words.
    """
    found = SPLIT_WORDS.get(word.strip().casefold()) if isinstance(word, str) else None
    if found is None:
        allowed = f"a column of the words {', '.join(SPLIT_WORDS)}"
        raise UserError.about("data.splits.column", column, allowed, f"{origin} holds {word!r}.")
    return found


def _slice(row: Mapping[str, Any], columns: Columns, class_names: Sequence[str]) -> str:
    if columns.slice is None:
        return ONE_SLICE
    value = row[columns.slice]
    if isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    if columns.slice == columns.label:
        label = clean_label(value, columns, "")
        return "unlabelled" if label is None else class_name(label)
    return str(value)


def wanted_of(data: FilesData | DatasetData, workload: Workload) -> dict[str, str]:
    """Role -> name of the columns that are read."""
    column = data.splits.column if data.splits else None
    return wanted_columns(data.columns, workload) | ({} if column is None else {"split": column})


def no_label(data: FilesData | DatasetData, declared: bool) -> set[str]:
    """Names that stand for no label; where classes are declared, -1 is one of them."""
    return {class_name(value).casefold() for value in data.unlabelled} | ({"-1"} if declared else set())


def label_in(row: Mapping[str, Any], columns: Columns, origin: str, none: Collection[str]) -> Label | None:
    """The label of a row; None where it has none, or one of the names `none`."""
    label = clean_label(row[columns.label], columns, origin)
    return None if label is not None and class_name(label).casefold() in none else label


def row_documents(
    rows: Iterable[tuple[str, Row]],
    data: FilesData | DatasetData,
    workload: Workload,
    dropped: Counter[str],
    split: SplitName | None,
    features: Mapping[str, Any] | None = None,
    read_image: ReadImage | None = None,
) -> Iterator[Document]:
    """Documents of rows, those left out that lack something where `data.missing` is drop.

    Args:
        rows: Where each stands, and its content.
        data: The data settings.
        workload: Decides which columns are read.
        dropped: Counts rows that are left out, by the missing column.
        split: The split that they are in; None: a column or the hash decides.
        features: Column to feature, of a dataset.
        read_image: Gives pixels and key of a cell; for image workloads.
    """
    columns, column = data.columns, data.splits.column if data.splits else None
    names: dict[str, Sequence[str]] = {name: found for name, each in (features or {}).items() if (found := getattr(each, "names", None))}
    none = no_label(data, columns.label in names)
    for origin, row in rows:
        if none and has_classes(workload) and label_in(row, columns, origin, none) is None:
            row = {**row, columns.label: None}
        if data.missing == "drop" and (role := missing_role(row, columns, workload)) is not None:
            dropped[role] += 1
            continue
        if column is not None:
            word = row[column]
            split = split_named(names[column][word] if column in names and isinstance(word, int) else word, column, origin)
        try:
            document = row_document(row, columns, workload, origin, names.get(columns.slice or "", ()), read_image, split)
        except UnreadableImage:
            if data.missing != "drop":
                raise
            dropped[BROKEN] += 1
            continue
        yield document
