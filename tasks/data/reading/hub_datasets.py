"""Documents of Hugging Face datasets, from the hub or a saved folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.errors import TransientError, UserError
from conf.home import home
from conf.loading.introspect import suggest
from conf.schema.data import DatasetData
from conf.schema.ladder import Workload
from conf.schema.tables import Columns
from conf.schema.workloads import has_classes
from models.base.files import read_json
from models.data.corpus import SplitName
from models.data.images import ReadImage
from tasks.data.reading.columns import check_columns
from tasks.data.reading.files import hash_files
from tasks.data.reading.readers import SPLIT_WORDS, Document, row_documents, wanted_of
from tasks.runtime.retries import is_transient

if TYPE_CHECKING:
    from datasets import Dataset

SAVED = ("dataset_dict.json", "state.json")  # of a folder of `save_to_disk`: of several splits, of one
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def dataset_hash(data: DatasetData, base: Path) -> str:
    """Hash of the raw content of a dataset."""
    folder = dataset_folder(data, base)
    if folder is None:
        prints = [f"{split}:{open_dataset(data, base, name)._fingerprint}" for split, name in dataset_splits(data)]
        return prints[0].partition(":")[2] if data.splits is None else hashlib.sha256("\n".join(prints).encode()).hexdigest()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hash_files((path.relative_to(folder).as_posix(), path) for path in files)


def dataset_folder(data: DatasetData, base: Path) -> Path | None:
    """The saved folder that the name means; None for a dataset of the hub.

    Raises:
        UserError: It is neither. `datasets` would take `json`, `text` and their like as loaders of whatever lies in the working directory,
            `pandas` even of pickles.
    """
    folder = Path(os.path.abspath(base / os.path.expanduser(data.name)))
    if any((folder / marker).is_file() for marker in SAVED):
        check_saved(folder)
        return folder
    allowed = "a folder written by save_to_disk, or the id owner/name of a dataset on the hub"
    if folder.exists() or os.path.lexists(data.name) or data.name.startswith((".", "/", "~")) or data.name.count("/") > 1:
        remedy = f"{folder} is no such folder. Write it with datasets' save_to_disk, or read plain files with data.source files."
        raise UserError.about("data.name", data.name, allowed, remedy)
    if not HUB_ID.fullmatch(data.name):
        remedy = "Add the owner, as in stanfordnlp/imdb; plain files are read with data.source files."
        raise UserError.about("data.name", data.name, allowed, remedy)
    return None


def check_saved(folder: Path) -> None:
    """Refuse a saved dataset whose own lists name files elsewhere, and links that lead out of it.

    Raises:
        UserError: Naming the file.
    """
    allowed, remedy = "a dataset whose files lie in its folder", "Write it again with save_to_disk."
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for marker in SAVED:
            for name in _names_in(place / marker):
                if Path(name).name != name or name in ("", ".", ".."):
                    raise UserError.about("data.name", f"{place / marker} that points to {name}", allowed, remedy)
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError.about("data.name", f"{path}, a link to {path.resolve()}", allowed, "Copy the file there in place of the link.")


def _names_in(file: Path) -> list[str]:
    """Names of files or splits in a list of `save_to_disk`; none where it is missing or no such list, which `datasets` refuses."""
    try:
        plain = read_json(file)
        found = plain["splits"] if file.name == SAVED[0] else [each["filename"] for each in plain["_data_files"]]
        return [str(name) for name in found]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def dataset_splits(data: DatasetData) -> list[tuple[SplitName | None, str]]:
    """Our split, and the dataset's, of all that is read."""
    given = data.splits.named() if data.splits else {}
    found: list[tuple[SplitName | None, str]] = [(SPLIT_WORDS[split], name) for split, names in given.items() for name in names]
    return found or [(None, data.split)]


def open_dataset(data: DatasetData, base: Path, split: str) -> Dataset:
    """One split of a dataset.

    Raises:
        UserError: There is no such dataset, or no such split.
        TransientError: The hub did not answer.
    """
    import datasets
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    folder = dataset_folder(data, base)
    allowed = "a readable folder written by save_to_disk" if folder else "the id of a dataset that the hub has and this machine can reach"
    remedy = (
        "Write it again." if folder else "Check data.name, data.subset, data.split and data.revision, and that HF_HUB_OFFLINE is not 1."
    )
    try:
        if folder is None:
            cache = os.environ.get("HF_DATASETS_CACHE") or str(home().root / "datasets")
            loaded: Any = datasets.load_dataset(data.name, data.subset, split=split, revision=data.revision, cache_dir=cache)
        else:
            loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, DatasetsError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if folder is None and is_transient(error):
            raise TransientError(f"data.name: the hub did not give {data.name} ({reason}).") from error
        raise UserError.about("data.name", data.name, allowed, f"{remedy} (datasets says: {reason})") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            names = [str(name) for name in loaded]
            key = "data.split" if split == data.split else "data.splits"
            raise UserError.about(
                key, split, f"the splits of {data.name}: {', '.join(names)}", f"{suggest(split, names)}Choose one of them."
            )
        loaded = loaded[split]
    elif folder is not None and data.splits and data.splits.train:
        raise UserError.about(
            "data.splits", split, f"a column: {data.name} has no splits of its own", "Set data.splits.column, or leave it out."
        )
    return loaded.with_format(None)  # a saved dataset may remember that it gives tensors


def declared_classes(dataset: Dataset, columns: Columns, workload: Workload) -> tuple[str, ...] | None:
    """Names of the classes 0, 1, ... that the column of labels declares."""
    import datasets

    feature = dataset.features.get(columns.label) if has_classes(workload) else None
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def dataset_documents(
    parts: Sequence[tuple[SplitName | None, Dataset]],
    data: DatasetData,
    workload: Workload,
    dropped: Counter[str],
    read_image: ReadImage | None,
) -> Iterator[Document]:
    """Documents of all rows, read while they are iterated over.

    Args:
        parts: Our split, and the rows, of each part.
        data: Columns and given splits.
        workload: Decides which columns are read.
        dropped: Counts rows that are left out, under what they lack.
        read_image: Gives pixels and key of what a row holds; for image workloads.
    """
    import datasets

    wanted = wanted_of(data, workload)
    for split, dataset in parts:
        name = data.name if split is None else f"{data.name} {split}"
        check_columns(dataset.column_names, wanted, name)
        rows = dataset.select_columns(list(dict.fromkeys(wanted.values())))
        if read_image is not None and isinstance(rows.features[data.columns.image], datasets.Image):
            rows = rows.cast_column(data.columns.image, datasets.Image(decode=False))
        placed = ((f"{name}, row {index}", rows[index]) for index in range(len(rows)))
        yield from row_documents(placed, data, workload, dropped, split, dataset.features, read_image)
