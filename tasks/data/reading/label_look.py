"""Look at the labels of data without preparing them, as far as bounds allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from conf.schema.data import DatasetData, FilesData
from conf.schema.ladder import Workload
from models.data.corpus import SplitName
from tasks.data.reading.columns import NoLabelColumn
from tasks.data.reading.files import list_files, picture_places
from tasks.data.reading.hub_datasets import dataset_folder, dataset_splits, declared_classes, open_dataset
from tasks.data.reading.labels import Label, LabelTally
from tasks.data.reading.readers import label_in, missing_role, no_label, wanted_of
from tasks.data.reading.tables import TABLES, read_rows
from tasks.data.reading.text_files import check_beginning

ROWS = 100_000
BYTES = 32 << 20  # of the text of rows


class LabelLook(NamedTuple):
    """Labels of the first documents.

    Attributes:
        tally: The labels.
        declared: Names of the classes 0, 1, ... where the source declares them.
        whole: Whether these are all documents.
    """

    tally: LabelTally
    declared: tuple[str, ...] | None
    whole: bool


def look_at_labels(data: FilesData | DatasetData, workload: Workload, base: Path) -> LabelLook | None:
    """The labels of the first `ROWS` rows, or of `BYTES` of them; no picture is opened. None where only the hub knows.

    Raises:
        UserError: As the source's readers.
    """
    declared: tuple[str, ...] | None = None
    if isinstance(data, DatasetData):
        if dataset_folder(data, base) is None:
            return None
        first = open_dataset(data, base, dataset_splits(data)[0][1])
        declared = declared_classes(first, data.columns, workload)
        labels = _of_dataset(data, base, declared is not None)
    elif data.has_datasets:
        return None
    else:
        labels = _of_files(data, workload, base)
    tally, size = LabelTally(), 0
    for label, origin, length in labels:
        if tally.counts.total() + tally.unlabelled == ROWS or size >= BYTES:
            return LabelLook(tally, declared, whole=False)
        tally.add(label, origin)
        size += length
    return LabelLook(tally, declared, whole=True)


def _of_files(data: FilesData, workload: Workload, base: Path) -> Iterator[tuple[Label | None, str, int]]:
    """Label, place and length in characters of each row or picture."""
    files = list_files(data, base, workload)
    places: dict[Path, tuple[str | None, SplitName | None]] = {}
    if workload == "image-classification":
        places = picture_places(data, files, base)
    tables = sum(file.path.suffix.lower() in TABLES for file in files)
    without: list[NoLabelColumn] = []
    for _, name, path, source in files:
        columns = (source and source.columns) or data.columns
        if path in places:
            label = places[path][0]
            yield None if label in data.unlabelled else label, name, 0
        elif path.suffix.lower() in TABLES:
            try:
                yield from _of_table(name, path, data.model_copy(update={"columns": columns}), workload)
            except NoLabelColumn as error:  # rows without label, where a table beside it has some
                without.append(error)
                if len(without) == tables:
                    raise
        else:
            check_beginning(name, path)
            yield None, name, 0


def _of_table(name: str, path: Path, data: FilesData, workload: Workload) -> Iterator[tuple[Label | None, str, int]]:
    drop = data.missing == "drop" and workload != "image-classification"
    wanted = wanted_of(data, workload) if drop else {"label": data.columns.label}
    none = no_label(data, declared=False)
    for origin, row in read_rows(name, path, wanted):
        if not (drop and missing_role(row, data.columns, workload)):
            yield label_in(row, data.columns, origin, none), origin, sum(len(value) for value in row.values() if isinstance(value, str))


def _of_dataset(data: DatasetData, base: Path, declared: bool) -> Iterator[tuple[Label | None, str, int]]:
    none = no_label(data, declared)
    for _, split in dataset_splits(data):
        rows: Any = open_dataset(data, base, split).select_columns([data.columns.label])
        for number, row in enumerate(rows):
            origin = f"{data.name}, row {number}"
            yield label_in(row, data.columns, origin, none), origin, 0
